//! Fuzzes the W3C trace context of requests. The input is lines: traceparent, then those of tracestate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valet::telemetry::context::TraceContext;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let parent = lines.next().expect("split gives one");
    let states: Vec<&[u8]> = lines.collect();
    let read = |parents: &[&[u8]]| TraceContext::parse(parents.iter().copied(), states.iter().copied());
    assert_eq!(read(&[]), None);
    assert_eq!(read(&[parent, parent]), None, "two parents are rejected");
    let Some(context) = read(&[parent]) else { return };

    // W3C Trace Context, section 3.2, in reverse: the parsed value is written as it was read.
    let text = std::str::from_utf8(&parent[..55]).expect("hexadecimal digits and dashes");
    let (version, flags) = (&text[..2], u8::from_str_radix(&text[53..], 16).expect("two digits"));
    assert_eq!(text, format!("{version}-{:032x}-{:016x}-{flags:02x}", context.trace_id, context.span_id));
    assert!(context.trace_id != 0 && context.span_id != 0 && version != "ff");
    assert_eq!(context.sampled, flags & 1 == 1);
    assert!(parent.len() == 55 || version != "00" && parent[55] == b'-');

    // Section 3.3: the newest members, each of them whole.
    let all = states.iter().filter_map(|line| std::str::from_utf8(line).ok()).flat_map(|line| line.split(','));
    let all: Vec<_> = all.map(str::trim).filter(|member| !member.is_empty()).collect();
    let parsed: Vec<_> = context.state.split(',').filter(|member| !member.is_empty()).collect();
    assert!(context.state.len() <= 512 && parsed.len() <= 32 && all.starts_with(&parsed));
});
