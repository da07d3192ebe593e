//! Where in the bytes of a file a record ends.
//!
//! Invariants: the bodies of the records, each followed by a newline (but those that are continued), are the bytes of
//! the file; a record has at most `max` bytes, and only one that is longer is cut into parts; a record is given out
//! when its end is sure, or when it is told to give out what there is.

use crate::config::pattern::LineStart;

/// What makes a record.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Largest record.
    pub max: usize,
    /// A line that matches begins a record, others belong to the one before; if not set each line is one.
    pub start: Option<&'a LineStart>,
}

/// Whether to wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// As long as the end is not sure.
    Wait,
    /// For the newline of a line only.
    Lines,
    /// Not at all.
    All,
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Where its body ends.
    pub end: usize,
    /// Where the next one begins.
    pub next: usize,
    /// It goes on in the next one.
    pub continued: bool,
}

impl Cut {
    fn line(end: usize) -> Option<Self> {
        Some(Self { end, next: end.saturating_add(1), continued: false })
    }

    fn part(end: usize) -> Option<Self> {
        Some(Self { end, next: end, continued: true })
    }
}

/// The first record of some bytes; `None` if they do not tell where it ends.
#[must_use]
pub fn first_record(bytes: &[u8], rules: Rules<'_>, flush: Flush) -> Option<Cut> {
    let max = rules.max.max(1);
    let is_long = bytes.len() > max;
    let Some(mut end) = memchr::memchr(b'\n', bytes) else {
        let rest = (flush == Flush::All && !bytes.is_empty()).then_some(bytes.len());
        return if is_long { Cut::part(max) } else { rest.map(|end| Cut { end, next: end, continued: false }) };
    };
    if end > max {
        return Cut::part(max);
    }
    let Some(start) = rules.start else { return Cut::line(end) };
    loop {
        let next = end.saturating_add(1);
        let rest = bytes.get(next..).unwrap_or_default();
        match memchr::memchr(b'\n', rest) {
            Some(len) if start.matches(rest.get(..len).unwrap_or_default()) => return Cut::line(end),
            Some(len) => {
                end = next.saturating_add(len);
                if end > max {
                    return Cut::part(max);
                }
            }
            // A line without its end: it may yet begin a record.
            None if flush == Flush::All && !rest.is_empty() && !start.matches(rest) => {
                let end = bytes.len();
                return if is_long { Cut::part(max) } else { Some(Cut { end, next: end, continued: false }) };
            }
            None if flush == Flush::Wait && rest.len() <= max => return None,
            None if flush == Flush::Wait && !start.matches(rest) => return Cut::part(max),
            None => return Cut::line(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], rules: Rules<'_>, flush: Flush) -> (Vec<(Vec<u8>, bool)>, usize) {
        let (mut at, mut records) = (0, Vec::new());
        while let Some(cut) = first_record(&bytes[at..], rules, flush) {
            assert!(cut.next > 0 && cut.end <= rules.max);
            records.push((bytes[at..at + cut.end].to_vec(), cut.continued));
            at += cut.next;
        }
        (records, at)
    }

    fn joined(records: &[(Vec<u8>, bool)]) -> Vec<u8> {
        records.iter().flat_map(|(body, continued)| body.iter().copied().chain((!continued).then_some(b'\n'))).collect()
    }

    #[test]
    fn lines_are_records_and_the_last_waits_for_its_newline() {
        let rules = Rules { max: 4, start: None };
        let (records, at) = all(b"a\n\nbcde\nfghijk\nlm", rules, Flush::Wait);
        let want: [(&[u8], bool); 5] = [(b"a", false), (b"", false), (b"bcde", false), (b"fghi", true), (b"jk", false)];
        assert!(records.iter().map(|(b, c)| (b.as_slice(), *c)).eq(want), "{records:?}");
        assert_eq!(at, 15);
        assert_eq!(all(b"lm", rules, Flush::All), (vec![(b"lm".to_vec(), false)], 2));
        assert_eq!(all(b"", rules, Flush::All), (vec![], 0));
    }

    #[test]
    fn lines_that_begin_no_record_are_joined_to_the_one_before() {
        let start = LineStart::new("^[0-9]").unwrap();
        let rules = Rules { max: 100, start: Some(&start) };
        let text = b"lost\n1 a\n at b\n\n at c\n2 d\n3 e\n at";
        let bodies = |flush| all(text, rules, flush).0.into_iter().map(|(b, _)| String::from_utf8(b).unwrap());
        assert_eq!(bodies(Flush::Wait).collect::<Vec<_>>(), ["lost", "1 a\n at b\n\n at c", "2 d"]);
        assert_eq!(bodies(Flush::Lines).collect::<Vec<_>>(), ["lost", "1 a\n at b\n\n at c", "2 d", "3 e"]);
        assert_eq!(bodies(Flush::All).next_back().unwrap(), "3 e\n at");
        assert_eq!(all(b"1\n2", rules, Flush::All).0.len(), 2);
    }

    #[test]
    fn nothing_is_lost_whatever_the_size_and_the_lines() {
        let start = LineStart::new("^[0-9]").unwrap();
        let text = b"1 abc\n\n\n def ghi\n2\n3\n\n 4 jkl mno pqr stu vwx\nyz\n5\n 6 7 8\n";
        for max in 1..text.len() + 2 {
            for start in [None, Some(&start)] {
                let rules = Rules { max, start };
                let (records, at) = all(text, rules, Flush::All);
                assert_eq!((joined(&records), at), (text.to_vec(), text.len()), "{max}");
                let (records, at) = all(text, rules, Flush::Wait);
                assert_eq!(joined(&records), text[..at], "{max}");
            }
        }
    }
}
