//! Checks that the store sends notifications of uploads, if the settings name a receiver, and sets them up with `--fix`.

use super::{
    Answer, answer_if,
    probe_context::ProbeContext,
    settings::{outcome, unknown},
};
use crate::{
    config::{QueueUrl, StoreEvents},
    store::objects::{
        events_queue::EventsQueue,
        notifications::NotificationReceivers,
        settings::{Change, Setting},
    },
};

/// Adds rules for the queue to the bucket's notifications, unless one names the queue or a topic, and describes the change. Returns
/// `None` without a queue: each store has its own way of sending notifications to a hook.
pub(super) async fn fix(context: &ProbeContext<'_>, settings: &StoreEvents) -> Option<String> {
    let queue = settings.queue.as_ref()?;
    let changed = async {
        let arn = EventsQueue::new(context.objects, queue).arn().await?;
        // S3 refuses a second rule for keys that go to a topic already. EventBridge receives them beside the queue.
        if matches!(route(&context.objects.notification_receivers().await?, &arn), Route::Queue | Route::Topic) {
            return Ok(Change::None);
        }
        context.objects.notify_queue(&arn).await
    };
    Some(outcome("notifications", changed.await))
}

/// Checks the queue, and the bucket's notifications.
pub(super) async fn examine(context: &ProbeContext<'_>, settings: &StoreEvents) -> Answer {
    let receivers = match (&settings.queue, &settings.hook) {
        (None, None) => return Answer::Skipped("neither S3_EVENTS_QUEUE nor HOOKS_BIND is set".to_owned()),
        _ => context.objects.notification_receivers().await,
    };
    let found = match (&settings.queue, receivers) {
        (Some(queue), receivers) => match queue_arn(context, queue).await {
            Ok(arn) => match receivers {
                Ok(receivers @ (Setting::Set(_) | Setting::Unset)) => {
                    return match route(&receivers, &arn) {
                        Route::Queue => Answer::Yes(describe(&receivers)),
                        Route::Topic | Route::EventBridge => Answer::Skipped(format!(
                            "they go to {}; whether these pass them on to the queue is not visible here: upload an image without \
                             confirming it, and see valet_notification_records_total",
                            describe(&receivers)
                        )),
                        Route::None => Answer::No(format!("none for {arn}")),
                    };
                }
                other => other,
            },
            Err(answer) => return answer,
        },
        (None, receivers) => receivers,
    };
    match found {
        Ok(receivers @ (Setting::Set(_) | Setting::Unset)) => {
            let described = describe(&receivers);
            answer_if(!described.is_empty(), if described.is_empty() { "none for u/ and in/".to_owned() } else { described })
        }
        other => Answer::Skipped(unknown(other)),
    }
}

/// Returns the queue's ARN, or the answer no.
async fn queue_arn(context: &ProbeContext<'_>, queue: &QueueUrl) -> Result<String, Answer> {
    EventsQueue::new(context.objects, queue).arn().await.map_err(|error| Answer::No(format!("the queue: {error}")))
}

/// The route of the bucket's notifications to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// To the queue.
    Queue,
    /// To a topic, which may pass them on.
    Topic,
    /// To `EventBridge`, which may pass them on.
    EventBridge,
    /// To receivers that cannot pass them on, or to none.
    None,
}

/// Returns the most direct route from the bucket to the queue with this ARN.
fn route(receivers: &Setting<NotificationReceivers>, arn: &str) -> Route {
    match receivers {
        Setting::Set(receivers) if receivers.arns.iter().any(|known| known == arn) => Route::Queue,
        Setting::Set(receivers) if receivers.arns.iter().any(|known| is_topic(known)) => Route::Topic,
        Setting::Set(receivers) if receivers.event_bridge => Route::EventBridge,
        _ => Route::None,
    }
}

/// Returns whether an ARN names a topic of SNS.
fn is_topic(arn: &str) -> bool {
    arn.split(':').nth(2) == Some("sns")
}

/// Returns the receivers of the bucket's notifications as a text; empty without any.
fn describe(receivers: &Setting<NotificationReceivers>) -> String {
    let Setting::Set(receivers) = receivers else { return String::new() };
    let bridge = receivers.event_bridge.then(|| "EventBridge".to_owned());
    receivers.arns.iter().cloned().chain(bridge).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rule_for_the_queue_itself_is_certain_to_reach_it() {
        let (queue, topic) = ("arn:aws:sqs:eu-west-1:1:valet", "arn:aws:sns:eu-west-1:1:all");
        let other = "arn:aws:sqs:eu-west-1:1:other";
        let route = |arns: &[&str], event_bridge| {
            let arns = arns.iter().map(|arn| (*arn).to_owned()).collect();
            super::route(&Setting::Set(NotificationReceivers { arns, event_bridge }), queue)
        };
        assert_eq!(super::route(&Setting::Unset, queue), Route::None);
        assert_eq!([route(&[], false), route(&[other], false)], [Route::None, Route::None]);
        assert_eq!([route(&[queue], false), route(&[topic, queue], true)], [Route::Queue, Route::Queue]);
        assert_eq!([route(&[topic], false), route(&[other, topic], true)], [Route::Topic, Route::Topic]);
        assert_eq!(route(&[other], true), Route::EventBridge);
    }
}
