//! Checks OpenTelemetry's settings of traces (`OTEL_…`; OpenTelemetry specification, "Environment Variable Specification"). The
//! SDK reads them itself and ignores invalid or unsupported values; here those stop the start.

use url::Url;

use super::reader::Reader;

/// Settings of the collector's address: for all signals, and for traces alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Settings of the protocol: for all signals, and for traces alone.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"];
/// Settings of the compression: for all signals, and for traces alone.
const COMPRESSIONS: [&str; 2] = ["OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"];
/// Settings of additional headers: for all signals, and for traces alone.
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];
/// Settings of the deadline of an export: for all signals, and for traces alone.
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"];

/// Settings of the queue of spans.
const QUEUE: [&str; 3] = ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"];

/// Setting of the sampler.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// Setting of the sampled fraction of traces.
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
/// Values of [`SAMPLER`].
const SAMPLERS: [&str; 6] =
    ["always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"];

impl Reader<'_> {
    /// Checks all settings of traces, except `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, which often serve other
    /// programs too.
    pub(super) fn check_traces(&mut self) {
        let one_of = |known: &'static [&'static str]| move |text: &str| known.contains(&text).then_some(());
        let is_url = |text: &str| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        for name in ENDPOINTS {
            self.read_valid(name, (), "the address of a collector, such as http://collector:4318", |text| {
                is_url(text).then_some(())
            });
        }
        for name in PROTOCOLS {
            self.read_valid(name, (), "http/protobuf, the only supported protocol", one_of(&["http/protobuf"]));
        }
        for name in COMPRESSIONS {
            self.read_valid(name, (), "none: compression is not supported", one_of(&["none"]));
        }
        for name in TIMEOUTS.into_iter().chain(QUEUE) {
            self.number(name, 1, u64::from(u32::MAX));
        }
        self.read_valid("OTEL_SDK_DISABLED", (), "true or false", |text| {
            ["true", "false"].iter().any(|flag| text.eq_ignore_ascii_case(flag)).then_some(())
        });
        self.read_valid("OTEL_TRACES_EXPORTER", (), "otlp or none", one_of(&["otlp", "none"]));
        self.read_valid(SAMPLER, (), format_args!("one of: {}", SAMPLERS.join(", ")), one_of(&SAMPLERS));
        let is_fraction = |text: &str| text.parse::<f64>().is_ok_and(|fraction| (0.0..=1.0).contains(&fraction));
        self.read_valid(SAMPLER_ARG, (), "the sampled fraction of traces, from 0 to 1", |text| is_fraction(text).then_some(()));
        let samples_fraction = self.text(SAMPLER).is_some_and(|sampler| sampler.ends_with("traceidratio"));
        self.no_effect_if(!samples_fraction, SAMPLER_ARG, "without an OTEL_TRACES_SAMPLER that samples a fraction of traces");
        for name in HEADERS {
            self.read_valid(name, (), "a list of headers such as name=value, percent-encoded", |text| {
                are_headers(text).then_some(())
            });
        }
        self.check_exporter();
    }

    /// Reports settings that have no effect because no collector is set.
    fn check_exporter(&mut self) {
        let has_collector = ENDPOINTS.iter().any(|name| self.is_set(name));
        let exporter = [PROTOCOLS, COMPRESSIONS, TIMEOUTS, HEADERS].concat();
        for name in exporter.into_iter().chain(QUEUE).chain([SAMPLER]) {
            self.no_effect_if(!has_collector, name, "without OTEL_EXPORTER_OTLP_ENDPOINT");
        }
    }
}

/// Returns whether a header's name may have this byte (`tchar` in RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns whether every item of a list is a header. The exporter would leave out other items.
fn are_headers(list: &str) -> bool {
    list.split(',').all(|item| {
        let Some((name, value)) = item.split_once('=') else { return false };
        let (name, value) = (name.trim(), value.trim());
        !name.is_empty()
            && name.bytes().all(is_token)
            && !value.is_empty()
            && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    })
}
