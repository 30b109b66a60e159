//! Dates of cameras and editors. The standards fix the form (Exif 3.0, 4.6.6; XMP part 1, 8.2.1.1), and cameras vary it.

use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};

use crate::model::{TakenAt, parse_offset};

/// Parses `2024:12:21 23:39:24`, as Exif has it, and `2024-12-21T23:39:24.67+01:00`, as XMP has it; seconds, their fraction and the
/// offset may be absent. `None` for an unknown part, which cameras write as spaces or zeros, and for a date without a time.
///
/// The offset is that of the text, or `None`; `exif` adds that of the tag beside the date. No other value of a file is certain to
/// have the time zone of the camera's clock.
pub(super) fn parse_date_time(text: &str) -> Option<TakenAt> {
    let mut rest = Rest(text.trim().as_bytes());
    let year = rest.number(4)?;
    rest.one_of(b":-/.")?;
    let month = Month::try_from(u8::try_from(rest.number(2)?).ok()?).ok()?;
    rest.one_of(b":-/.")?;
    let date = Date::from_calendar_date(year.into(), month, u8::try_from(rest.number(2)?).ok()?).ok()?;
    rest.one_of(b" T")?;
    // Phones of LG write the first hour of a day as 24.
    let hour = rest.number(2).map(|hour| if hour == 24 { 0 } else { hour })?;
    rest.one_of(b":")?;
    let minute = rest.number(2)?;
    // A leap second is stored as the second before it.
    let second =
        if rest.one_of(b":").is_some() { rest.number(2).map(|second| if second == 60 { 59 } else { second })? } else { 0 };
    let millisecond = if rest.one_of(b".,").is_some() { rest.fraction()? } else { 0 };
    let small = |n: u16| u8::try_from(n).ok();
    let time = Time::from_hms_milli(small(hour)?, small(minute)?, small(second)?, millisecond).ok()?;
    TakenAt::new(PrimitiveDateTime::new(date, time), rest.offset()?)
}

/// Parses an offset of Exif 2.31, such as `+01:00`. `None` if it is unknown or malformed.
pub(super) fn parse_exif_offset(text: &str) -> Option<UtcOffset> {
    let mut rest = Rest(text.trim().as_bytes());
    rest.offset()?
}

/// Parses a fraction of a second without its point: `67` is 670 milliseconds.
pub(super) fn parse_subsecond(text: &str) -> Option<u16> {
    Rest(text.trim().as_bytes()).fraction()
}

/// The rest of a text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Takes a number of exactly this many digits.
    fn number(&mut self, digits: usize) -> Option<u16> {
        let (taken, rest) = self.0.split_at_checked(digits)?;
        let number = taken.iter().try_fold(0_u16, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u16::from(b - b'0')))?;
        self.0 = rest;
        Some(number)
    }

    /// Takes one of these characters.
    fn one_of(&mut self, characters: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        characters.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// Takes the digits behind a decimal point, and returns the fraction in milliseconds.
    fn fraction(&mut self) -> Option<u16> {
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        let milli = |sum: u16, position: usize| sum * 10 + digits.get(position).map_or(0, |b| u16::from(b - b'0'));
        (count > 0).then(|| (0..3).fold(0, milli))
    }

    /// Takes the offset at the end of the text. Returns `Some(None)` for a text without an offset, or with one that means that the
    /// offset is unknown.
    fn offset(&mut self) -> Option<Option<UtcOffset>> {
        let text = std::str::from_utf8(self.0).ok()?.trim();
        match text.as_bytes() {
            [] => Some(None),
            // Editors also write `+0000`.
            [sign @ (b'+' | b'-'), h, hh, m, mm] => {
                let text = [*sign, *h, *hh, b':', *m, *mm];
                parse_offset(std::str::from_utf8(&text).ok()?)
            }
            _ => parse_offset(text),
        }
    }
}
