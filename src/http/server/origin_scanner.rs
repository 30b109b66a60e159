//! Finds the `Origin` of a request head that is too long to keep.

/// Maximum bytes that are kept of a line; no `Origin` line is longer.
const MAX_LINE_BYTES: usize = 512;

/// Scans a request head as it arrives, and keeps only its `Origin` lines.
#[derive(Debug, Default)]
pub(super) struct OriginScanner {
    /// Start of the current line.
    line: Vec<u8>,
    /// A head with an empty request line and the `Origin` lines so far.
    origins: Vec<u8>,
    has_request_line: bool,
    is_complete: bool,
}

impl OriginScanner {
    /// Scans the first bytes of a head.
    pub(super) fn start(head: &[u8]) -> Self {
        let mut scanner = Self::default();
        scanner.push(head);
        scanner
    }

    /// Scans the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_complete {
                return;
            }
            let free_bytes = MAX_LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..free_bytes).unwrap_or(part));
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// Ends a line, and keeps it if it is an `Origin`.
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let is_origin = line.get(..b"origin:".len()).is_some_and(|name| name.eq_ignore_ascii_case(b"origin:"));
        if !self.has_request_line {
            self.has_request_line = true;
            self.origins.push(b'\n');
        } else if line.trim_ascii().is_empty() {
            self.is_complete = true;
        } else if is_origin && line.ends_with(b"\n") && self.origins.len() < 2 * MAX_LINE_BYTES {
            // Two lines suffice: more than one `Origin` counts as none.
            self.origins.extend(line);
        }
    }

    /// Returns whether the empty line after the head has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns a head with the same `Origin` lines.
    pub(super) fn origins(&self) -> &[u8] {
        &self.origins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_found_wherever_the_head_is_cut() {
        let long = "a".repeat(100_000);
        let origin = "oRigin: https://app.example\r\n";
        for (head, kept) in [
            (format!("GET / HTTP/1.1\r\nx: {long}\r\n{origin}\r\n"), format!("\n{origin}")),
            (format!("GET /?{long} HTTP/1.1\r\n{origin}y: z\r\n{origin}\r\n"), format!("\n{origin}{origin}")),
            (format!("GET / HTTP/1.1\r\norigin: {long}\r\n\r\n{origin}"), "\n".to_owned()),
            (format!("{origin}x: {long}\r\n\r\n"), "\n".to_owned()),
        ] {
            for size in [1, 7, 511, 512, 513, 32_768, head.len()] {
                let mut scanner = OriginScanner::default();
                head.as_bytes().chunks(size).for_each(|chunk| scanner.push(chunk));
                assert!(
                    scanner.is_complete() && scanner.origins() == kept.as_bytes(),
                    "{size}: {:?}",
                    String::from_utf8_lossy(scanner.origins())
                );
            }
            let mut cut = OriginScanner::start(&head.as_bytes()[..50_000]);
            assert!(!cut.is_complete());
            cut.push(&head.as_bytes()[50_000..]);
            assert_eq!(cut.origins(), kept.as_bytes());
        }
        let many = OriginScanner::start(format!("GET / HTTP/1.1\r\n{}\r\n", origin.repeat(10_000)).as_bytes());
        assert!(many.origins().len() < 3 * MAX_LINE_BYTES);
    }
}
