//! Updates that change the state of an image: each also writes the event of its transition.

use mongodb::bson::{Bson, Document, doc};

use super::{Images, count_transitions};
use crate::{
    model::{EventType, Image, ImageState},
    store::{StoreError, outbox::Outbox},
};

/// A transition of one image: its update, and the filter for the image that may make it.
#[derive(Debug)]
pub(in crate::store) struct Transition {
    pub(in crate::store) filter: Document,
    pub(in crate::store) update: TransitionUpdate,
}

impl Transition {
    /// Returns the filter and the update, for a command that makes several transitions.
    pub(in crate::store) fn into_update(self, outbox: &Outbox) -> (Document, Bson) {
        (self.filter, self.update.pipeline(outbox).into())
    }
}

/// The update of a transition. No other update sets `state`, so no transition lacks its event.
#[derive(Debug)]
pub(in crate::store) struct TransitionUpdate {
    to: ImageState,
    set: Document,
    unset: Vec<String>,
}

impl TransitionUpdate {
    /// Returns a transition to this state that changes nothing else.
    pub(in crate::store) fn to(state: ImageState) -> Self {
        Self { to: state, set: doc! { "state": state.as_str() }, unset: Vec::new() }
    }

    /// Returns the state that the image enters.
    pub(in crate::store) fn state(&self) -> ImageState {
        self.to
    }

    /// Adds fields with these values.
    pub(in crate::store) fn set(mut self, values: Document) -> Self {
        // A pipeline would read a leading `$` as a field path, and a document as fields to merge.
        self.set.extend(values.into_iter().map(|(field, value)| (field, Bson::from(doc! { "$literal": value }))));
        self
    }

    /// Adds fields with the results of these expressions.
    pub(in crate::store) fn compute(mut self, expressions: Document) -> Self {
        self.set.extend(expressions);
        self
    }

    /// Removes fields.
    pub(in crate::store) fn unset<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        self.unset.extend(fields.into_iter().map(str::to_owned));
        self
    }

    /// Returns the update as a pipeline. An event has an id of its own, so an update with an event is for one document.
    pub(in crate::store) fn pipeline(self, outbox: &Outbox) -> Vec<Document> {
        let event = EventType::of_transition(self.to).and_then(|event| outbox.image_stage(event));
        let unset = (!self.unset.is_empty()).then(|| doc! { "$unset": self.unset });
        [Some(doc! { "$set": self.set }), event, unset].into_iter().flatten().collect()
    }
}

impl Images {
    /// Makes a transition, and counts it. Returns the image after it; `None` if the filter does not match it.
    pub(in crate::store) async fn make_transition(&self, transition: Transition) -> Result<Option<Image>, StoreError> {
        let to = transition.update.state();
        let image = self.update_owned(transition.filter, transition.update.pipeline(&self.outbox)).await?;
        self.record_transitions(to, image.is_some().into());
        Ok(image)
    }

    /// Counts images that entered a state, and wakes this server's fan-out of events.
    pub(in crate::store) fn record_transitions(&self, to: ImageState, how_many: u64) {
        count_transitions(to, how_many);
        if how_many > 0 && EventType::of_transition(to).is_some() {
            self.outbox.wake();
        }
    }

    /// Returns the outbox, for transitions that another file composes.
    pub(in crate::store) fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}
