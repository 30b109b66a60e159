//! The origin that a head names which is too long to be kept.

/// Longer lines are no origin's.
const LONGEST: usize = 512;

/// Scans a request head as it arrives, and keeps its `Origin` lines alone.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Of the line that is coming, its beginning.
    line: Vec<u8>,
    kept: Vec<u8>,
    has_request_line: bool,
    is_over: bool,
}

impl Scan {
    /// Of what has come so far.
    pub(super) fn of(head: &[u8]) -> Self {
        let mut scan = Self::default();
        scan.push(head);
        scan
    }

    /// Goes on with what came next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_over {
                return;
            }
            let room = LONGEST.saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room).unwrap_or(part));
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let is_origin = line.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"origin:"));
        if !self.has_request_line {
            self.has_request_line = true;
            self.kept.push(b'\n');
        } else if line.trim_ascii().is_empty() {
            self.is_over = true;
        } else if is_origin && line.ends_with(b"\n") && self.kept.len() < 2 * LONGEST {
            // Two are as good as many: neither counts then.
            self.kept.extend(line);
        }
    }

    /// Whether the empty line after the head has come.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// A head of the same origins.
    pub(super) fn head(&self) -> &[u8] {
        &self.kept
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
                let mut scan = Scan::default();
                head.as_bytes().chunks(size).for_each(|chunk| scan.push(chunk));
                assert!(scan.is_over() && scan.head() == kept.as_bytes(), "{size}: {:?}", String::from_utf8_lossy(scan.head()));
            }
            let mut cut = Scan::of(&head.as_bytes()[..50_000]);
            assert!(!cut.is_over());
            cut.push(&head.as_bytes()[50_000..]);
            assert_eq!(cut.head(), kept.as_bytes());
        }
        let many = Scan::of(format!("GET / HTTP/1.1\r\n{}\r\n", origin.repeat(10_000)).as_bytes());
        assert!(many.head().len() < 3 * LONGEST);
    }
}
