//! Log lines as JSON objects: the event's fields beside `timestamp`, `level` and `target`, and those of its span under `span`.
//!
//! A span's fields are stored as JSON, each with a comma before it, so that they are copied into each line without change. The JSON
//! formatter of `tracing-subscriber` parses them again for every line and for every field that is recorded later.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// Writes fields as members of an object, each with a comma before it.
#[derive(Debug)]
pub(super) struct Members;

/// Writes events as lines.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<'w> FormatFields<'w> for Members {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut members = MemberWriter { writer, result: Ok(()) };
        fields.record(&mut members);
        members.result
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

impl<S> FormatEvent<S, Members> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(&self, context: &FmtContext<'_, S, Members>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        writer.write_str("\",\"level\":\"")?;
        writer.write_str(metadata.level().as_str())?;
        writer.write_char('"')?;
        Members.format_fields(writer.by_ref(), event)?;
        writer.write_str(",\"target\":")?;
        write_text(&mut writer, metadata.target())?;
        let span = event.parent().and_then(|id| context.span(id)).or_else(|| context.lookup_current());
        if let Some(span) = span {
            writer.write_str(",\"span\":{\"name\":")?;
            write_text(&mut writer, span.metadata().name())?;
            if let Some(members) = span.extensions().get::<FormattedFields<Members>>() {
                writer.write_str(&members.fields)?;
            }
            writer.write_char('}')?;
        }
        writer.write_str("}\n")
    }
}

/// Writes the members of an object. A [`Visit`] cannot return an error, so the first one is kept in `result`.
struct MemberWriter<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
}

impl MemberWriter<'_> {
    /// Writes the name of a member, and its value by `write`.
    fn member(&mut self, field: &Field, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let name = field.name();
        // Rust's keywords need this prefix to be the name of a field.
        let name = name.strip_prefix("r#").unwrap_or(name);
        let write_member = || {
            self.writer.write_char(',')?;
            write_text(&mut self.writer, name)?;
            self.writer.write_char(':')?;
            write(&mut self.writer)
        };
        if self.result.is_ok() {
            self.result = write_member();
        }
    }
}

impl Visit for MemberWriter<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities and no NaN.
        self.member(field, |out| if value.is_finite() { write!(out, "{value}") } else { out.write_str("null") });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |out| write_text(out, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |out| {
            out.write_char('"')?;
            write!(Escaped(out), "{value:?}")?;
            out.write_char('"')
        });
    }
}

/// Writes a text, escaped and quoted.
fn write_text(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    Escaped(out).write_str(text)?;
    out.write_char('"')
}

/// Writer that escapes text for a JSON string (RFC 8259 section 7).
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // UTF-8 uses these bytes only for the characters themselves, so the split is at a boundary.
        while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            let (plain, after) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut after = after.chars();
            match after.next().unwrap_or_default() {
                '\n' => self.0.write_str("\\n")?,
                '\r' => self.0.write_str("\\r")?,
                '\t' => self.0.write_str("\\t")?,
                control @ ..' ' => write!(self.0, "\\u{:04x}", u32::from(control))?,
                quote_or_backslash => {
                    self.0.write_char('\\')?;
                    self.0.write_char(quote_or_backslash)?;
                }
            }
            rest = after.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Writer into memory, shared with the subscriber.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs `log`, and returns the lines that it logs.
    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let layer = layer.fmt_fields(Members).event_format(JsonLines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_fields_of_its_event_and_its_span() {
        let lines = lines(|| {
            let span = tracing::info_span!(target: "audit", "request", id = "a\"b", user = tracing::field::Empty);
            let _entered = span.enter();
            tracing::info!(target: "t", count = 3_u64, less = -3, share = 0.5, none = f64::NAN, is = true, r#type = ?"x", "done");
            span.record("user", tracing::field::display("ada"));
            tracing::warn!(target: "t", "again");
        });
        let mut first = lines[0].clone();
        let at = first.as_object_mut().unwrap().remove("timestamp").unwrap();
        time::OffsetDateTime::parse(at.as_str().unwrap(), &time::format_description::well_known::Rfc3339).unwrap();
        let expected = json!({ "level": "INFO", "message": "done", "count": 3, "less": -3, "share": 0.5, "none": null, "is": true,
            "type": "\"x\"", "target": "t", "span": { "name": "request", "id": "a\"b" } });
        assert_eq!(first, expected);
        assert_eq!(lines[1]["span"], json!({ "name": "request", "id": "a\"b", "user": "ada" }));
        assert_eq!((lines.len(), &lines[1]["level"]), (2, &json!("WARN")));
    }

    #[test]
    fn event_outside_of_a_span_has_no_member_span() {
        assert_eq!(lines(|| tracing::info!("started"))[0].get("span"), None);
    }

    proptest! {
        #[test]
        fn every_text_is_one_line_and_reads_back(text in any::<String>(), controls in "[\\x00-\\x1f\"\\\\\u{7f}é]{0,8}") {
            for text in [&text, &controls] {
                let lines = lines(|| tracing::info!(text = text.as_str(), shown = %text, "{text}"));
                prop_assert_eq!(lines.len(), 1);
                for field in ["text", "shown", "message"] {
                    prop_assert_eq!(lines[0][field].as_str(), Some(text.as_str()));
                }
            }
        }
    }
}
