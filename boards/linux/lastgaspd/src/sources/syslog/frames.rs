//! Cuts the bytes of a TCP connection into syslog messages (RFC 6587).
//!
//! Which framing a sender uses shows at its first bytes: a number, a space and `<` is octet counting; anything else is
//! lines, which end at whatever ends the first of them: a newline (with or without a carriage return) or a NUL.
//!
//! Invariants: the messages, with what separates them, are the bytes that came, whatever is in them and however they
//! were cut by the network; at most `max` bytes and a frame's head are held; a longer message is given out in parts.

use memchr::{memchr, memchr2};

/// Longest number of an octet count that is believed.
const COUNT_DIGITS_MAX: usize = 9;

/// A message, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'b> {
    /// All of a message.
    Whole(&'b [u8]),
    /// The beginning of a message.
    Begins(&'b [u8]),
    /// More of it.
    GoesOn(&'b [u8]),
    /// The rest of it.
    Ends(&'b [u8]),
}

/// What separates messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Nothing has come yet that tells.
    Unknown,
    /// Lines; what ends them is seen at the end of the first.
    Lines(Option<u8>),
    /// Octet counting: a count comes next.
    Count,
    /// Octet counting: so much of a message is still to come.
    Counted(usize),
}

/// The state of a connection.
#[derive(Debug)]
pub struct Frames {
    framing: Framing,
    /// Came, and is no whole message.
    held: Vec<u8>,
    /// So much of it has no separator.
    searched: usize,
    /// A part of the message was given out.
    is_begun: bool,
    /// A count was no number: what follows is taken as lines.
    lost_count: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { framing: Framing::Unknown, held: Vec::new(), searched: 0, is_begun: false, lost_count: false }
    }
}

impl Frames {
    /// Bytes of memory held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Since the last time, a count was expected and something else came.
    pub fn has_lost_count(&mut self) -> bool {
        std::mem::take(&mut self.lost_count)
    }

    /// Takes bytes in, and gives out the messages that are complete, and parts of those longer than `max`.
    pub fn take(&mut self, chunk: &[u8], max: usize, out: &mut impl FnMut(Piece<'_>)) {
        if self.held.is_empty() {
            let used = self.cut(chunk, max, out);
            self.held.extend_from_slice(chunk.get(used..).unwrap_or_default());
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(chunk);
        match self.cut(&held, max, out) {
            0 => self.held = held,
            // Memory is given back with the message.
            used => self.held = held.get(used..).unwrap_or_default().to_vec(),
        }
    }

    /// Gives out what is held as a part of a message, to make room.
    pub fn spill(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        let held = std::mem::take(&mut self.held);
        let part = match self.framing {
            Framing::Lines(_) => held.as_slice(),
            Framing::Counted(left) => {
                self.framing = Framing::Counted(left.saturating_sub(held.len()));
                held.as_slice()
            }
            Framing::Count => match count(&held) {
                Counting::Is { head, len } => {
                    let part = held.get(head..).unwrap_or_default();
                    self.framing = Framing::Counted(len.saturating_sub(part.len()));
                    part
                }
                // A few bytes that are not worth it.
                Counting::Unsure | Counting::IsNone => {
                    self.held = held;
                    return;
                }
            },
            Framing::Unknown => {
                self.held = held;
                return;
            }
        };
        self.searched = 0;
        if !part.is_empty() {
            self.part(part, out);
        }
    }

    /// The end of the connection: gives out what is held, as a whole message or, if it was cut off, as a part. `true`
    /// if a message is not complete.
    pub fn finish(mut self, is_cut: bool, out: &mut impl FnMut(Piece<'_>)) -> bool {
        let held = std::mem::take(&mut self.held);
        let (rest, is_short) = match (self.framing, count(&held)) {
            (Framing::Counted(left), _) => (held.as_slice(), left > held.len()),
            (Framing::Count, Counting::Is { head, .. }) => (held.get(head..).unwrap_or_default(), true),
            (Framing::Count, Counting::Unsure) => (&[][..], !held.is_empty()),
            _ => (held.as_slice(), false),
        };
        if rest.is_empty() && !self.is_begun {
            return is_short;
        }
        if is_cut {
            self.part(rest, out);
        } else {
            self.last(rest, out);
        }
        is_short
    }

    /// Cuts messages off the front of `bytes`; how many bytes that takes.
    fn cut(&mut self, bytes: &[u8], max: usize, out: &mut impl FnMut(Piece<'_>)) -> usize {
        let max = max.max(1);
        let mut at = 0usize;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let used = match self.framing {
                Framing::Unknown => match framing(rest) {
                    Some(framing) => {
                        self.framing = framing;
                        continue;
                    }
                    None => break,
                },
                Framing::Lines(end) => self.cut_line(rest, end, max, out),
                Framing::Count => self.cut_count(rest, max),
                Framing::Counted(left) => self.cut_counted(rest, left, max, out),
            };
            match used {
                Some(used) => at = at.saturating_add(used),
                None => break,
            }
        }
        at
    }

    fn cut_line(
        &mut self,
        bytes: &[u8],
        end: Option<u8>,
        max: usize,
        out: &mut impl FnMut(Piece<'_>),
    ) -> Option<usize> {
        let from = std::mem::take(&mut self.searched);
        let fresh = bytes.get(from..).unwrap_or_default();
        let found = match end {
            Some(end) => memchr(end, fresh),
            None => memchr2(b'\n', 0, fresh),
        };
        let line = found.map_or(bytes.len(), |at| from.saturating_add(at));
        if line > max {
            self.part(bytes.get(..max).unwrap_or_default(), out);
            return Some(max);
        }
        let Some(separator) = found.and_then(|_| bytes.get(line)) else {
            self.searched = line;
            return None;
        };
        self.framing = Framing::Lines(Some(*separator));
        let body = bytes.get(..line).unwrap_or_default();
        let body = body.strip_suffix(b"\r").filter(|_| *separator == b'\n').unwrap_or(body);
        self.last(body, out);
        Some(line.saturating_add(1))
    }

    fn cut_count(&mut self, bytes: &[u8], max: usize) -> Option<usize> {
        match count(bytes) {
            // Until all of a message of moderate size is there, its count stays with it.
            Counting::Is { head, len } => {
                let is_there = bytes.len().saturating_sub(head) >= len;
                (is_there || len > max).then(|| {
                    self.framing = Framing::Counted(len);
                    head
                })
            }
            Counting::Unsure => None,
            Counting::IsNone => {
                self.lost_count = true;
                self.framing = Framing::Lines(None);
                Some(0)
            }
        }
    }

    fn cut_counted(&mut self, bytes: &[u8], left: usize, max: usize, out: &mut impl FnMut(Piece<'_>)) -> Option<usize> {
        if left <= max {
            let body = bytes.get(..left)?;
            self.framing = Framing::Count;
            // Some senders count a newline or a NUL in.
            let body = body.strip_suffix(b"\n").or_else(|| body.strip_suffix(b"\0")).unwrap_or(body);
            self.last(body, out);
            return Some(left);
        }
        let part = bytes.get(..max)?;
        self.framing = Framing::Counted(left.saturating_sub(max));
        self.part(part, out);
        Some(max)
    }

    fn part(&mut self, part: &[u8], out: &mut impl FnMut(Piece<'_>)) {
        let is_begun = std::mem::replace(&mut self.is_begun, true);
        out(if is_begun { Piece::GoesOn(part) } else { Piece::Begins(part) });
    }

    fn last(&mut self, rest: &[u8], out: &mut impl FnMut(Piece<'_>)) {
        let is_begun = std::mem::replace(&mut self.is_begun, false);
        match is_begun {
            true => out(Piece::Ends(rest)),
            // Lines without anything in them are the other half of a separator, or a sign of life.
            false if rest.is_empty() => {}
            false => out(Piece::Whole(rest)),
        }
    }
}

/// Which framing the first bytes of a connection show; `None` if more is needed to tell.
fn framing(bytes: &[u8]) -> Option<Framing> {
    match count(bytes) {
        Counting::Is { head, .. } => match bytes.get(head)? {
            b'<' => Some(Framing::Count),
            _ => Some(Framing::Lines(None)),
        },
        Counting::Unsure => None,
        Counting::IsNone => Some(Framing::Lines(None)),
    }
}

/// What stands where an octet count may stand.
enum Counting {
    /// A count, and how long it is with its space.
    Is { head: usize, len: usize },
    /// The beginning of one.
    Unsure,
    /// Something else.
    IsNone,
}

fn count(bytes: &[u8]) -> Counting {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > COUNT_DIGITS_MAX || (digits > 0 && bytes.first() == Some(&b'0')) {
        return Counting::IsNone;
    }
    match bytes.get(digits) {
        None => Counting::Unsure,
        Some(b' ') if digits > 0 => {
            let number = bytes.get(..digits).and_then(|d| str::from_utf8(d).ok()).and_then(|d| d.parse().ok());
            number.map_or(Counting::IsNone, |len| Counting::Is { head: digits.saturating_add(1), len })
        }
        Some(_) => Counting::IsNone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages (whole, or joined from their parts) and whether the end of each came, of these chunks.
    fn cut(chunks: &[&[u8]], max: usize) -> Vec<(Vec<u8>, bool)> {
        let mut got: Vec<(Vec<u8>, bool)> = Vec::new();
        let mut frames = Frames::default();
        let mut out = |piece: Piece<'_>| match piece {
            Piece::Whole(body) => got.push((body.to_vec(), true)),
            Piece::Begins(part) => got.push((part.to_vec(), false)),
            Piece::GoesOn(part) => got.last_mut().unwrap().0.extend_from_slice(part),
            Piece::Ends(rest) => {
                let last = got.last_mut().unwrap();
                last.0.extend_from_slice(rest);
                last.1 = true;
            }
        };
        for chunk in chunks {
            frames.take(chunk, max, &mut out);
            assert!(frames.held.len() <= max + COUNT_DIGITS_MAX + 2, "{} bytes are held", frames.held.len());
        }
        frames.finish(false, &mut out);
        got
    }

    fn all(messages: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        messages.iter().map(|m| (m.to_vec(), true)).collect()
    }

    #[test]
    fn the_first_bytes_tell_the_framing_and_the_first_end_the_separator() {
        assert_eq!(cut(&[b"<1>a\n<2>b\n"], 99), all(&[b"<1>a", b"<2>b"]));
        assert_eq!(cut(&[b"<1>a\r\n<2>b\r\n"], 99), all(&[b"<1>a", b"<2>b"]));
        assert_eq!(cut(&[b"<1>a\n<2>\0b\n"], 99), all(&[b"<1>a", b"<2>\0b"]));
        assert_eq!(
            cut(&[b"<1>a\nb\0<2>c\nd\0"], 99),
            all(&[b"<1>a", b"b\0<2>c", b"d\0"]),
            "the first end was a newline"
        );
        assert_eq!(cut(&[b"<1>a\0<2>c\nd\0"], 99), all(&[b"<1>a", b"<2>c\nd"]));
        assert_eq!(cut(&[b"4 <1>a5 <2>\n\n"], 99), all(&[b"<1>a", b"<2>\n"]));
        assert_eq!(cut(&[b"12 monkeys\n<1>a"], 99), all(&[b"12 monkeys", b"<1>a"]));
        assert_eq!(cut(&[b"2026-11-20 x\n"], 99), all(&[b"2026-11-20 x"]));
        assert_eq!(cut(&[b"\n\n<1>a\n\n"], 99), all(&[b"<1>a"]));
        assert_eq!(cut(&[b"4 <1>abad\n<1>x\n"], 99), all(&[b"<1>a", b"bad", b"<1>x"]), "a lost count loses no byte");
    }

    #[test]
    fn every_way_to_cut_the_bytes_gives_the_same_messages() {
        let inputs: [&[u8]; 4] = [
            b"<1>abcdefgh\n\n<2>b\r\n<3>",
            b"4 <1>a12 <2>bcdefghi\n3 <3>",
            b"<1>a\0<2>\nb\0",
            b"15 <1>abcdefghij\0\0x\ny",
        ];
        for input in inputs {
            for max in [3, 8, 99] {
                let whole = cut(&[input], max);
                for split in 0..=input.len() {
                    for second in split..=input.len() {
                        let parts = [&input[..split], &input[split..second], &input[second..]];
                        assert_eq!(cut(&parts, max), whole, "cut at {split} and {second}, at most {max}");
                    }
                }
            }
            let separators = |b: &&u8| !b" \r\n\0".contains(b);
            let joined: Vec<u8> = cut(&[input], 99).into_iter().flat_map(|(m, _)| m).collect();
            let mut left = input.iter().filter(separators);
            assert!(joined.iter().filter(separators).all(|b| left.any(|c| c == b)), "in order, and none made up");
        }
    }

    #[test]
    fn what_is_spilled_and_what_is_cut_off_are_parts_of_their_message() {
        let mut got = Vec::new();
        let mut out = |piece: Piece<'_>| got.push(format!("{piece:?}"));
        let mut frames = Frames::default();
        for input in [&b"9 <1>a"[..], b"bcd", b"ef4 <2>"] {
            frames.take(input, 99, &mut out);
            frames.spill(&mut out);
        }
        assert!(frames.finish(true, &mut out), "one byte is missing");
        let want = [
            Piece::Begins(b"<1>a"),
            Piece::GoesOn(b"bcd"),
            Piece::Ends(b"ef"),
            Piece::Begins(b"<2>"),
            Piece::GoesOn(b""),
        ];
        assert_eq!(got, want.map(|p| format!("{p:?}")));
    }

    #[test]
    fn no_bytes_hold_memory_or_panic() {
        let mut x = 0x5eed_u64;
        println!("seed {x:#x}");
        for _ in 0..3000 {
            let mut random = |below: usize| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(x >> 33).unwrap() % below
            };
            let max = 1 + random(50);
            let mut frames = Frames::default();
            let mut bytes = (0usize, 0usize);
            let mut out = |piece: Piece<'_>| {
                let (Piece::Whole(b) | Piece::Begins(b) | Piece::GoesOn(b) | Piece::Ends(b)) = piece;
                bytes.0 += b.len();
            };
            for _ in 0..20 {
                let chunk: Vec<u8> = (0..random(40)).map(|_| b"<> 0123456789\n\0\rab\xff"[random(19)]).collect();
                bytes.1 += chunk.len();
                frames.take(&chunk, max, &mut out);
                assert!(frames.held.len() <= max + COUNT_DIGITS_MAX + 2);
                if random(9) == 0 {
                    frames.spill(&mut out);
                }
            }
            frames.finish(random(2) == 0, &mut out);
            assert!(bytes.0 <= bytes.1);
        }
    }
}
