//! Positions in the stream of all changes of images, which clients send back to resume their event streams.

use std::{fmt, str::FromStr};

/// A position in the stream of all changes, in the order in which the database made them. Equal on all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// Seconds of the database's logical time, which follow its clock.
    pub seconds: u32,
    /// Order within the second.
    pub increment: u32,
    /// Number of changes at this logical time that are before the position; a transaction makes several.
    pub changes: u32,
}

/// The text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position of an event stream")]
pub struct InvalidEventPosition;

impl EventPosition {
    /// Returns the position before all changes at this logical time.
    #[must_use]
    pub fn before(seconds: u32, increment: u32) -> Self {
        Self { seconds, increment, changes: 0 }
    }

    /// Returns the position after one more change, which was made at this logical time.
    #[must_use]
    pub fn after_change_at(self, seconds: u32, increment: u32) -> Self {
        let changes = if (self.seconds, self.increment) == (seconds, increment) { self.changes } else { 0 };
        Self { seconds, increment, changes: changes.saturating_add(1) }
    }
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.seconds, self.increment, self.changes)
    }
}

impl FromStr for EventPosition {
    type Err = InvalidEventPosition;

    /// Parses the text that [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, InvalidEventPosition> {
        // A `u32` has at most ten digits.
        let number = |part: Option<&str>| {
            let part = part.filter(|part| part.len() <= 10 && part.bytes().all(|byte| byte.is_ascii_digit()));
            part.and_then(|part| part.parse().ok()).ok_or(InvalidEventPosition)
        };
        let mut parts = text.split('-');
        let position = Self { seconds: number(parts.next())?, increment: number(parts.next())?, changes: number(parts.next())? };
        if parts.next().is_none() { Ok(position) } else { Err(InvalidEventPosition) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ordered_and_survive_being_written() {
        let before = EventPosition::before(1_764_412_345, 7);
        let first = before.after_change_at(1_764_412_345, 7);
        let second = first.after_change_at(1_764_412_345, 7);
        let later = second.after_change_at(1_764_412_345, 8);
        assert!(before < first && first < second && second < later);
        assert_eq!(second.to_string(), "1764412345-7-2");
        for position in
            [before, first, second, later, EventPosition { seconds: u32::MAX, increment: u32::MAX, changes: u32::MAX }]
        {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for text in
            ["", "1", "1-2", "1-2-3-4", "1-2-", "-1-2-3", "+1-2-3", "1-2-x", "4294967296-0-0", "1-2-3 ", "00000000001-2-3"]
        {
            assert_eq!(text.parse::<EventPosition>(), Err(InvalidEventPosition), "{text}");
        }
    }
}
