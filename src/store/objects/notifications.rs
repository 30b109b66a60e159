//! The bucket's notification configuration: to which receivers the objects that clients write are announced, and the change that
//! announces them to Valet's queue.
//!
//! The change keeps other rules, as in the other settings: Valet replaces only rules that have its names.

use aws_sdk_s3::{
    operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput,
    types::{Event, FilterRuleName, NotificationConfiguration, NotificationConfigurationFilter, QueueConfiguration, S3KeyFilter},
};

use super::{
    Objects, StoreError,
    settings::{Absence, Change, Setting, build_error, change_outcome, read_denied, setting},
};

/// The prefixes of keys that clients write, each with the name of Valet's rule for it: a rule has one prefix.
const RULES: [(&str, &str); 2] = [("valet-u", "u/"), ("valet-in", "in/")];

/// The events by which clients create objects: a PUT, a form, and the completion of an upload in parts, which Uppy's clients make
/// at the store.
const CREATIONS: [Event; 3] =
    [Event::S3ObjectCreatedPut, Event::S3ObjectCreatedPost, Event::S3ObjectCreatedCompleteMultipartUpload];

/// Receivers of a notification about every object that clients write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationReceivers {
    /// ARNs of queues, topics and functions.
    pub arns: Vec<String>,
    /// Whether `EventBridge` receives all notifications of the bucket.
    pub event_bridge: bool,
}

impl NotificationReceivers {
    /// Reads the receivers whose rules together cover all keys that clients write.
    fn read(found: &GetBucketNotificationConfigurationOutput) -> Self {
        let queues = found.queue_configurations().iter().map(|rule| Announcement {
            arn: rule.queue_arn(),
            events: rule.events(),
            filter: rule.filter(),
        });
        let topics = found.topic_configurations().iter().map(|rule| Announcement {
            arn: rule.topic_arn(),
            events: rule.events(),
            filter: rule.filter(),
        });
        let functions = found.lambda_function_configurations().iter().map(|rule| Announcement {
            arn: rule.lambda_function_arn(),
            events: rule.events(),
            filter: rule.filter(),
        });
        let rules: Vec<_> = queues.chain(topics).chain(functions).collect();
        // Several rules of a receiver may share the prefixes and the events.
        let announces =
            |arn: &str, event: &Event, prefix: &str| rules.iter().any(|rule| rule.arn == arn && rule.announces(event, prefix));
        let covers = |arn: &str| RULES.iter().all(|(_, prefix)| CREATIONS.iter().all(|event| announces(arn, event, prefix)));
        let mut arns: Vec<_> = rules.iter().map(|rule| rule.arn.to_owned()).filter(|arn| covers(arn)).collect();
        arns.sort();
        arns.dedup();
        Self { arns, event_bridge: found.event_bridge_configuration().is_some() }
    }
}

/// A rule for a receiver of any kind.
struct Announcement<'a> {
    arn: &'a str,
    events: &'a [Event],
    filter: Option<&'a NotificationConfigurationFilter>,
}

impl Announcement<'_> {
    /// Returns whether the rule announces every object that is created under this prefix by this event.
    fn announces(&self, event: &Event, prefix: &str) -> bool {
        // Some stores write the filter's names in lower case, which is an unknown name to the SDK.
        let rules = self.filter.and_then(NotificationConfigurationFilter::key).map(S3KeyFilter::filter_rules).unwrap_or_default();
        let admits_all = rules.iter().all(|rule| {
            let value = rule.value().unwrap_or_default();
            let is_prefix = rule.name().is_some_and(|name| name.as_str().eq_ignore_ascii_case(FilterRuleName::Prefix.as_str()));
            if is_prefix { prefix.starts_with(value) } else { value.is_empty() }
        });
        admits_all && (self.events.contains(&Event::S3ObjectCreated) || self.events.contains(event))
    }
}

impl Objects {
    /// Returns the receivers of notifications about every object that clients write.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn notification_receivers(&self) -> Result<Setting<NotificationReceivers>, StoreError> {
        self.notifications().await?.try_map(|found| Ok(NotificationReceivers::read(&found)))
    }

    /// Has the store announce every object that clients write to this queue; every other rule stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is written when the present rules cannot be read.
    pub async fn notify_queue(&self, arn: &str) -> Result<Change, StoreError> {
        const OPERATION: &str = "PutBucketNotificationConfiguration";
        let found = match self.notifications().await? {
            Setting::Set(found) => found,
            Setting::Unset => GetBucketNotificationConfigurationOutput::builder().build(),
            Setting::Unsupported => return Ok(Change::Unsupported),
            Setting::Denied => return Err(read_denied("GetBucketNotificationConfiguration")),
        };
        if NotificationReceivers::read(&found).arns.iter().any(|known| known == arn) {
            return Ok(Change::None);
        }
        let has_valet_name = |rule: &QueueConfiguration| RULES.iter().any(|(name, _)| rule.id() == Some(*name));
        let mut queues: Vec<_> = found.queue_configurations().iter().filter(|rule| !has_valet_name(rule)).cloned().collect();
        for (name, prefix) in RULES {
            let prefix = aws_sdk_s3::types::FilterRule::builder().name(FilterRuleName::Prefix).value(prefix).build();
            let filter = NotificationConfigurationFilter::builder().key(S3KeyFilter::builder().filter_rules(prefix).build());
            let rule =
                QueueConfiguration::builder().id(name).queue_arn(arn).events(Event::S3ObjectCreated).filter(filter.build());
            queues.push(rule.build().map_err(|_| build_error(OPERATION))?);
        }
        let wanted = NotificationConfiguration::builder()
            .set_queue_configurations(Some(queues))
            .set_topic_configurations(found.topic_configurations)
            .set_lambda_function_configurations(found.lambda_function_configurations)
            .set_event_bridge_configuration(found.event_bridge_configuration);
        let put = self.client.put_bucket_notification_configuration().bucket(&self.bucket);
        change_outcome(OPERATION, put.notification_configuration(wanted.build()).send().await)
    }

    /// Returns the notification configuration.
    async fn notifications(&self) -> Result<Setting<GetBucketNotificationConfigurationOutput>, StoreError> {
        let got = self.client.get_bucket_notification_configuration().bucket(&self.bucket).send().await;
        setting("GetBucketNotificationConfiguration", Absence::Empty, got)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_sdk_s3::types::{EventBridgeConfiguration, FilterRule, TopicConfiguration};

    use super::*;

    const QUEUE: &str = "arn:aws:sqs:eu-central-1:123456789012:valet";

    /// Returns a filter with rules of these names and values.
    fn filter(rules: &[(&str, &str)]) -> NotificationConfigurationFilter {
        let rules =
            rules.iter().map(|(name, value)| FilterRule::builder().name(FilterRuleName::from(*name)).value(*value).build());
        let key = S3KeyFilter::builder().set_filter_rules(Some(rules.collect())).build();
        NotificationConfigurationFilter::builder().key(key).build()
    }

    /// Returns a rule that sends these events to [`QUEUE`].
    fn queue(events: &[Event], rules: &[(&str, &str)]) -> QueueConfiguration {
        let rule = QueueConfiguration::builder().queue_arn(QUEUE).set_events(Some(events.to_vec()));
        rule.filter(filter(rules)).build().unwrap()
    }

    /// Returns the receivers that [`NotificationReceivers`] reads from these rules.
    fn announced(rules: &[QueueConfiguration]) -> Vec<String> {
        let found = GetBucketNotificationConfigurationOutput::builder().set_queue_configurations(Some(rules.to_vec())).build();
        NotificationReceivers::read(&found).arns
    }

    #[test]
    fn only_rules_for_all_keys_of_uploads_announce_them() {
        use Event::{
            S3ObjectCreated as Created, S3ObjectCreatedCompleteMultipartUpload as Complete, S3ObjectCreatedPost as Post,
            S3ObjectCreatedPut as Put, S3ObjectRemoved as Removed,
        };
        for rules in [
            vec![queue(&[Created], &[])],
            vec![queue(&[Removed, Created], &[("prefix", ""), ("suffix", "")])],
            vec![queue(&[Put, Post, Complete], &[])],
            vec![queue(&[Put], &[]), queue(&[Post, Complete, Removed], &[])],
            vec![queue(&[Put, Post, Complete], &[("prefix", "u/")]), queue(&[Created], &[("prefix", "in/")])],
            vec![queue(&[Created], &[("prefix", "u/")]), queue(&[Created], &[("Prefix", "in/")])],
        ] {
            assert_eq!(announced(&rules), [QUEUE], "{rules:?}");
        }
        for rules in [
            vec![],
            vec![queue(&[Removed], &[])],
            vec![queue(&[Put], &[])],
            vec![queue(&[Put, Post], &[])],
            vec![queue(&[Post, Complete], &[])],
            vec![queue(&[Put, Complete], &[]), queue(&[Post], &[("prefix", "in/")])],
            vec![queue(&[Created], &[("prefix", "u/")])],
            vec![queue(&[Created], &[("suffix", ".jpg")])],
            vec![queue(&[Created], &[("prefix", "u/0198")]), queue(&[Created], &[("prefix", "in/")])],
        ] {
            assert_eq!(announced(&rules), Vec::<String>::new(), "{rules:?}");
        }
    }

    #[test]
    fn topics_and_event_bridge_are_recognized() {
        let topic =
            TopicConfiguration::builder().topic_arn("arn:aws:sns:eu-central-1:123456789012:t").events(Event::S3ObjectCreated);
        let found = GetBucketNotificationConfigurationOutput::builder()
            .topic_configurations(topic.build().unwrap())
            .event_bridge_configuration(EventBridgeConfiguration::builder().build())
            .build();
        let wanted =
            NotificationReceivers { arns: vec!["arn:aws:sns:eu-central-1:123456789012:t".to_owned()], event_bridge: true };
        assert_eq!(NotificationReceivers::read(&found), wanted);
    }
}
