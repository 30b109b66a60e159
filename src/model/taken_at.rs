//! The time at which a photograph was taken: local time, and its offset from UTC if that was recorded; and the months of the
//! timeline.

use std::fmt;

use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// A local date and time to the millisecond, with its offset from UTC if that is known. The offset is never guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenAt {
    local: PrimitiveDateTime,
    offset: Option<UtcOffset>,
}

impl TakenAt {
    /// Earliest year: that of the oldest photograph.
    pub const FIRST_YEAR: i32 = 1826;
    /// Largest distance of an offset from UTC, in minutes.
    pub const MAX_OFFSET_MINUTES: i32 = 14 * 60;
    /// Time by which a local time may be ahead of the current UTC: time zones are ahead by 14 hours at most, and a camera's clock
    /// may be wrong by a day.
    const TOLERANCE: Duration = Duration::days(2);

    /// Returns the time; `None` before [`Self::FIRST_YEAR`], after 9999, or for an offset that is out of range or not in whole
    /// minutes.
    #[must_use]
    pub fn new(local: PrimitiveDateTime, offset: Option<UtcOffset>) -> Option<Self> {
        let is_offset = |offset: UtcOffset| {
            offset.seconds_past_minute() == 0 && i32::from(offset.whole_minutes()).abs() <= Self::MAX_OFFSET_MINUTES
        };
        let is_valid = (Self::FIRST_YEAR..=9999).contains(&local.year()) && offset.is_none_or(is_offset);
        let local = local.replace_millisecond(local.millisecond()).ok()?;
        is_valid.then_some(Self { local, offset })
    }

    /// Parses the text that [`Display`](fmt::Display) writes: RFC 3339 in whole seconds, without an offset if it is unknown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Date and time have 19 characters.
        let (local, offset) = text.split_at_checked(19).filter(|(local, _)| local.is_ascii())?;
        let number = |from: usize, to: usize| -> Option<u16> {
            let digits = local.get(from..to)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let two_digits = |from: usize| u8::try_from(number(from, from + 2)?).ok();
        let is_separated =
            [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')].iter().all(|(at, c)| local[*at..].starts_with(*c));
        if !is_separated {
            return None;
        }
        let month = Month::try_from(two_digits(5)?).ok()?;
        let date = Date::from_calendar_date(number(0, 4)?.into(), month, two_digits(8)?).ok()?;
        let time = Time::from_hms(two_digits(11)?, two_digits(14)?, two_digits(17)?).ok()?;
        let offset = match offset {
            "" => None,
            text => parse_offset(text)?,
        };
        Self::new(PrimitiveDateTime::new(date, time), offset)
    }

    /// Returns the time with a fraction of a second and an offset that were recorded separately, if it has none itself.
    #[must_use]
    pub fn completed(self, millisecond: Option<u16>, offset: Option<UtcOffset>) -> Option<Self> {
        let millisecond = millisecond.filter(|_| self.local.millisecond() == 0).unwrap_or(self.local.millisecond());
        Self::new(self.local.replace_millisecond(millisecond).ok()?, self.offset.or(offset))
    }

    /// Returns the local time as if it were UTC. Sorting by it puts images in the order of the clocks that people saw.
    #[must_use]
    pub fn sort_time(self) -> OffsetDateTime {
        self.local.assume_utc()
    }

    /// Returns whether the time may have passed already in some time zone, by a clock that is at most a day ahead.
    #[must_use]
    pub fn has_passed(self, now: OffsetDateTime) -> bool {
        self.sort_time() <= now + Self::TOLERANCE
    }
}

/// Parses `Z` or an offset such as `+05:30`; `None` if it is out of range. Returns `Some(None)` for `-00:00`, which means that the
/// offset is unknown (RFC 3339, 4.3).
#[must_use]
pub fn parse_offset(text: &str) -> Option<Option<UtcOffset>> {
    let (sign, hours, minutes) = match text.as_bytes() {
        b"Z" => return Some(Some(UtcOffset::UTC)),
        b"-00:00" => return Some(None),
        [sign @ (b'+' | b'-'), h, hh, b':', m, mm] => (*sign, [*h, *hh], [*m, *mm]),
        _ => return None,
    };
    let number = |[tens, ones]: [u8; 2]| {
        (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i32::from(10 * (tens - b'0') + (ones - b'0')))
    };
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|minutes| *minutes < 60)?);
    let total = hours * 60 + minutes;
    let signed = if sign == b'-' { -total } else { total };
    (total <= TakenAt::MAX_OFFSET_MINUTES).then(|| UtcOffset::from_whole_seconds(signed * 60).ok())?.map(Some)
}

impl fmt::Display for TakenAt {
    /// Writes RFC 3339 in whole seconds: `2024-12-21T23:39:24+01:00`, or `2024-12-21T23:39:24` if the offset is unknown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, offset } = self;
        let (year, month, day) = local.to_calendar_date();
        let (hour, minute, second) = local.as_hms();
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", u8::from(month))?;
        match offset.map(UtcOffset::whole_minutes) {
            None => Ok(()),
            Some(0) => f.write_str("Z"),
            Some(minutes) => {
                let sign = if minutes < 0 { '-' } else { '+' };
                let minutes = minutes.unsigned_abs();
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

/// A month of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineMonth {
    year: i32,
    month: u8,
}

impl TimelineMonth {
    /// Returns the month of a sort time.
    #[must_use]
    pub fn of(at: OffsetDateTime) -> Self {
        let at = at.to_offset(UtcOffset::UTC);
        Self { year: at.year(), month: at.month().into() }
    }

    /// Parses the text that [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let is_number = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(year, 4) || !is_number(month, 2) {
            return None;
        }
        let month = month.parse().ok().filter(|month| (1..=12).contains(month))?;
        Some(Self { year: year.parse().ok()?, month })
    }
}

impl fmt::Display for TimelineMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::model::text_strategies::any_text;

    #[test]
    fn offsets_are_written_only_if_they_are_known() {
        for text in [
            "2024-12-21T23:39:24+01:00",
            "2024-12-21T23:39:24-05:30",
            "2024-12-21T23:39:24+14:00",
            "2024-12-21T23:39:24Z",
            "2024-12-21T23:39:24",
            "1826-01-01T00:00:00",
        ] {
            assert_eq!(TakenAt::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(TakenAt::parse("2024-12-21T23:39:24+00:00").unwrap().to_string(), "2024-12-21T23:39:24Z");
        assert_eq!(TakenAt::parse("2024-12-21T23:39:24-00:00").unwrap().to_string(), "2024-12-21T23:39:24");
    }

    #[test]
    fn other_times_and_offsets_are_rejected() {
        for text in [
            "",
            "2024-12-21",
            "2024-12-21 23:39:24",
            "2024-12-21T23:39",
            "2024-12-21T24:00:00",
            "2024-02-30T00:00:00",
            "2024-12-21T23:39:24+14:01",
            "2024-12-21T23:39:24+01:60",
            "2024-12-21T23:39:24+0100",
            "2024-12-21T23:39:24.5",
            "1825-12-31T23:59:59",
            "0000-00-00T00:00:00",
            "20é4-12-21T23:39:24",
        ] {
            assert_eq!(TakenAt::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_may_be_two_days_ahead_of_utc_at_most() {
        let now = datetime!(2026-11-22 10:00 UTC);
        let has_passed = |text| TakenAt::parse(text).unwrap().has_passed(now);
        assert!(has_passed("2026-11-24T10:00:00") && has_passed("1969-07-20T20:17:40Z"));
        assert!(!has_passed("2026-11-24T10:00:01") && !has_passed("2099-01-01T00:00:00+01:00"));
    }

    proptest! {
        #[test]
        fn accepted_texts_parse_to_themselves(text in prop_oneof![
            any_text(),
            "[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](Z|[+-][01][0-9]:[0-5][0-9])?",
        ]) {
            if let Some(taken_at) = TakenAt::parse(&text) {
                prop_assert_eq!(TakenAt::parse(&taken_at.to_string()), Some(taken_at));
                let month = TimelineMonth::of(taken_at.sort_time());
                prop_assert_eq!(TimelineMonth::parse(&month.to_string()), Some(month));
                prop_assert!(text.starts_with(&month.to_string()));
            }
            let _ = TimelineMonth::parse(&text);
        }
    }
}
