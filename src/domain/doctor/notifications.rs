//! Checks that the store announces what clients upload, if the settings say where notifications are received, and has it do so with
//! `--fix`.

use super::{
    Answer, answer_if,
    probe_context::ProbeContext,
    settings::{outcome, unknown},
};
use crate::{
    config::{QueueUrl, StoreEvents},
    store::objects::{
        events_queue::EventsQueue,
        notifications::Announced,
        settings::{Change, Setting},
    },
};

/// Has the store announce uploads to the queue, and returns the change in words. `None` without a queue: each store has its own way
/// of pushing to a hook.
pub(super) async fn fix(context: &ProbeContext<'_>, settings: &StoreEvents) -> Option<String> {
    let queue = settings.queue.as_ref()?;
    let changed = async {
        let arn = EventsQueue::new(context.objects, queue).arn().await?;
        if reaches_queue(&context.objects.announced().await?, &arn) {
            return Ok(Change::None);
        }
        context.objects.announce_to_queue(&arn).await
    };
    Some(outcome("notifications", changed.await))
}

/// Checks the queue, and the bucket's notifications.
pub(super) async fn examine(context: &ProbeContext<'_>, settings: &StoreEvents) -> Answer {
    let announced = match (&settings.queue, &settings.hook) {
        (None, None) => return Answer::Skipped("neither S3_EVENTS_QUEUE nor HOOKS_BIND is set".to_owned()),
        _ => context.objects.announced().await,
    };
    let found = match (&settings.queue, announced) {
        (Some(queue), announced) => match queue_arn(context, queue).await {
            Ok(arn) => match announced {
                Ok(announced @ (Setting::Set(_) | Setting::Unset)) => {
                    let holds = reaches_queue(&announced, &arn);
                    return answer_if(holds, if holds { describe(&announced) } else { format!("none for {arn}") });
                }
                other => other,
            },
            Err(no) => return no,
        },
        (None, announced) => announced,
    };
    match found {
        Ok(announced @ (Setting::Set(_) | Setting::Unset)) => {
            let described = describe(&announced);
            answer_if(!described.is_empty(), if described.is_empty() { "none for u/ and in/".to_owned() } else { described })
        }
        other => Answer::Skipped(unknown(other)),
    }
}

async fn queue_arn(context: &ProbeContext<'_>, queue: &QueueUrl) -> Result<String, Answer> {
    EventsQueue::new(context.objects, queue).arn().await.map_err(|error| Answer::No(format!("the queue: {error}")))
}

/// Returns whether the notifications go to the queue, or to something that may pass them on to it.
fn reaches_queue(announced: &Setting<Announced>, arn: &str) -> bool {
    let Setting::Set(announced) = announced else { return false };
    announced.event_bridge || announced.arns.iter().any(|known| known == arn || is_topic(known))
}

fn is_topic(arn: &str) -> bool {
    arn.split(':').nth(2) == Some("sns")
}

fn describe(announced: &Setting<Announced>) -> String {
    let Setting::Set(announced) = announced else { return String::new() };
    let bridge = announced.event_bridge.then(|| "EventBridge".to_owned());
    announced.arns.iter().cloned().chain(bridge).collect::<Vec<_>>().join(", ")
}
