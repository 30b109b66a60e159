//! Parses W3C Trace Context (<https://www.w3.org/TR/trace-context/>); a header that deviates from the standard in any byte is
//! ignored.

/// Header with the trace and span ids, in lower case.
pub const TRACEPARENT: &str = "traceparent";
/// Header with the state of each tracing system on the way.
pub const TRACESTATE: &str = "tracestate";

/// Maximum bytes of a continued `tracestate`: the number that, by the standard, every system should pass on at least.
const MAX_STATE_BYTES: usize = 512;
/// Maximum members of a continued `tracestate`: the largest number that the standard permits.
const MAX_STATE_MEMBERS: usize = 32;
/// Bytes of a `traceparent` of version 0: 2, 32, 16 and 2 digits with dashes between them.
const PARENT_BYTES: usize = 55;

/// The caller's span that a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    pub trace_id: u128,
    /// The caller's span; never zero.
    pub span_id: u64,
    /// Whether the caller records its spans.
    pub sampled: bool,
    /// `tracestate`, with its lines joined and truncated to the bounds.
    pub state: String,
}

impl TraceContext {
    /// Parses the lines of both headers. `None` without a `traceparent`, with several, or with an invalid one: then a new trace
    /// begins, and `tracestate` is ignored.
    pub fn parse<'a>(mut parents: impl Iterator<Item = &'a [u8]>, states: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let (trace_id, span_id, sampled) = parse_traceparent(parent)?;
        Some(Self { trace_id, span_id, sampled, state: join_tracestate(states) })
    }
}

/// Parses `traceparent` (section 3.2): `version-trace-parent-flags`. Later versions may append fields after another dash.
fn parse_traceparent(text: &[u8]) -> Option<(u128, u64, bool)> {
    let (fields, rest) = text.split_at_checked(PARENT_BYTES)?;
    let field = |from: usize, to: usize| parse_hex(&fields[from..to]);
    let dashes = [2, 35, 52].into_iter().all(|at| fields[at] == b'-');
    let version = field(0, 2).filter(|version| *version != 0xff)?;
    let complete = rest.is_empty() || (version > 0 && rest[0] == b'-');
    let trace_id = field(3, 35).filter(|id| *id != 0)?;
    let span_id = field(36, 52).filter(|id| *id != 0)?;
    let flags = field(53, 55)?;
    (dashes && complete).then_some((trace_id, u64::try_from(span_id).ok()?, flags & 1 == 1))
}

/// Parses lower-case hexadecimal digits; the standard forbids upper case.
fn parse_hex(digits: &[u8]) -> Option<u128> {
    let lower = digits.iter().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit));
    u128::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| lower)?, 16).ok()
}

/// Joins `tracestate` (section 3.3): members of all lines in order, the newest first; whole members are dropped at the end.
fn join_tracestate<'a>(lines: impl Iterator<Item = &'a [u8]>) -> String {
    let mut state = String::new();
    let members = lines.filter_map(|line| std::str::from_utf8(line).ok()).flat_map(|line| line.split(','));
    for member in members.map(str::trim).filter(|member| !member.is_empty()).take(MAX_STATE_MEMBERS) {
        if state.len() + 1 + member.len() > MAX_STATE_BYTES {
            break;
        }
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(member);
    }
    state
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Parses the lines of `traceparent` and of `tracestate`.
    fn read(parents: &[&str], states: &[&str]) -> Option<TraceContext> {
        TraceContext::parse(parents.iter().map(|line| line.as_bytes()), states.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn a_valid_parent_is_continued() {
        let context = read(&[VALID], &["a=1, b=2", "", "c=3"]).unwrap();
        assert_eq!(context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((context.span_id, context.sampled), (0xb7ad_6b71_6920_3331, true));
        assert_eq!(context.state, "a=1,b=2,c=3");
        assert!(!read(&[&VALID.replace("-01", "-00")], &[]).unwrap().sampled);
        // Other flags are reserved by the standard, and a later version may append fields.
        assert!(read(&[&VALID.replace("-01", "-03")], &[]).unwrap().sampled);
        let later = VALID.replacen("00", "cc", 1);
        assert!(read(&[&later], &[]).is_some() && read(&[&format!("{later}-what-the-future-brings")], &[]).is_some());
    }

    #[test]
    fn invalid_parents_are_ignored() {
        let zeros = |n| "0".repeat(n);
        for invalid in [
            String::new(),
            "00".to_owned(),
            VALID[..54].to_owned(),
            format!("{VALID}-more"),
            format!("{VALID}x"),
            VALID.replacen("00", "ff", 1),
            format!("{}.more", VALID.replacen("00", "cc", 1)),
            VALID.to_uppercase(),
            VALID.replace('-', "_"),
            format!("+{}", &VALID[1..]),
            VALID.replace("0af7651916cd43dd8448eb211c80319c", &zeros(32)),
            VALID.replace("b7ad6b7169203331", &zeros(16)),
            VALID.replace("-01", "-0g"),
            VALID.replace("0af7", "0äf"),
        ] {
            assert_eq!(read(&[&invalid], &["a=1"]), None, "{invalid}");
        }
        assert_eq!(read(&[], &["a=1"]), None);
        assert_eq!(read(&[VALID, VALID], &[]), None, "two headers are ambiguous");
    }

    #[test]
    fn the_state_is_bounded_by_whole_members() {
        let many: Vec<_> = (0..100).map(|n| format!("k{n}=v")).collect();
        let state = read(&[VALID], &[&many.join(",")]).unwrap().state;
        assert_eq!(state.split(',').count(), 32);
        assert!(state.starts_with("k0=v,k1=v") && state.ends_with(",k31=v"));
        let long: Vec<_> = (0..9).map(|n| format!("k{n}={}", "v".repeat(100))).collect();
        let state = read(&[VALID], &[&long.join(",")]).unwrap().state;
        assert_eq!((state.split(',').count(), state.len() <= 512), (4, true));
    }
}
