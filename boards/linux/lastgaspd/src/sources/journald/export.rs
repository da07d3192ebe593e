//! The Journal Export Format: a stream of bytes becomes entries.
//!
//! An entry is lines `NAME=text`, or `NAME`, a newline, the size as 8 bytes little-endian, so many bytes, a newline;
//! an empty line ends it (<https://systemd.io/JOURNAL_EXPORT_FORMATS>).
//!
//! Invariants: fields come out in their order, duplicates too, byte for byte; an entry is given out when its empty line
//! was seen, so one that is cut off never is; memory is bounded by [`Limits`], whatever sizes the stream claims: what
//! is beyond is left out, and the entry knows how much; after something malformed the next empty line is looked for.

use std::ops::Range;

/// What journald takes as the name of a field is at most 64 bytes long.
const NAME_BYTES_MAX: usize = 255;
/// What a field counts beyond its bytes.
pub(super) const FIELD_OVERHEAD_BYTES: usize = 12;
/// No field can be larger.
const FIELD_BYTES_MAX: u64 = 1 << 40;
/// An entry's memory that is kept for the next one.
const KEPT_BYTES: usize = 64 << 10;

/// How much of an entry is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of its first MESSAGE.
    pub message_bytes: usize,
    /// Of all other fields, with their names and [`FIELD_OVERHEAD_BYTES`] each; one may take an eighth.
    pub fields_bytes: usize,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    name: Range<usize>,
    value: Range<usize>,
    /// Its size in the journal; `value` is shorter if it was cut.
    pub full_bytes: u64,
}

/// An entry.
#[derive(Debug, Default)]
pub struct Entry {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// Which field is the first MESSAGE.
    message: Option<usize>,
    used: usize,
    /// Fields of which not even the name is kept.
    pub left_out: u64,
    /// What was wrong with it.
    pub malformed: Option<&'static str>,
}

impl Entry {
    /// Names and values in order; the number of bytes that the value had.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
        let get = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        self.fields.iter().map(move |f| (get(&f.name), get(&f.value), f.full_bytes))
    }

    /// Number of the first field called MESSAGE.
    #[must_use]
    pub fn message(&self) -> Option<usize> {
        self.message
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields().find(|(n, ..)| *n == name).map(|(_, value, _)| value)
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, name: &[u8]) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.fields.clear();
        self.fields.shrink_to(1024);
        (self.message, self.used, self.left_out, self.malformed) = (None, 0, 0, None);
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.malformed.is_none() && self.left_out == 0
    }

    /// Starts a field; how much of its value may be kept, none if not even the name.
    fn begin(&mut self, name: &[u8], limits: &Limits) -> Option<usize> {
        let is_message = name == b"MESSAGE" && self.message.is_none();
        let room = if is_message {
            self.message = Some(self.fields.len());
            limits.message_bytes
        } else {
            let head = name.len().saturating_add(FIELD_OVERHEAD_BYTES);
            let left = limits.fields_bytes.saturating_sub(self.used).checked_sub(head);
            let Some(left) = left else {
                self.left_out = self.left_out.saturating_add(1);
                return None;
            };
            self.used = self.used.saturating_add(head);
            left.min(limits.fields_bytes / 8)
        };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let end = self.bytes.len();
        self.fields.push(Field { name: start..end, value: end..end, full_bytes: 0 });
        Some(room)
    }

    /// Adds to the value of the last field.
    fn add(&mut self, chunk: &[u8], room: &mut usize) {
        let is_message = self.message == self.fields.len().checked_sub(1);
        let Some(field) = self.fields.last_mut() else { return };
        let kept = chunk.get(..*room).unwrap_or(chunk);
        self.bytes.extend_from_slice(kept);
        *room = room.saturating_sub(kept.len());
        if !is_message {
            self.used = self.used.saturating_add(kept.len());
        }
        field.value.end = self.bytes.len();
        field.full_bytes = field.full_bytes.saturating_add(chunk.len() as u64);
    }
}

/// Where in the format the stream is.
#[derive(Debug, Clone, Copy)]
enum At {
    /// In the name of a field, or at the empty line.
    Name,
    /// In text, up to the newline. No room: it is left out.
    Text(Option<usize>),
    /// In the size of a binary value, of which so many bytes are there.
    Size(Option<usize>, [u8; 8], usize),
    /// In a binary value, with so many bytes to come.
    Binary(Option<usize>, u64),
    /// At the newline behind it.
    BinaryEnd,
    /// Behind something malformed; at the start of a line or not.
    Lost(bool),
}

/// Reads entries from chunks of any size.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    entry: Entry,
    name: Vec<u8>,
    at: At,
}

impl Parser {
    /// At the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, entry: Entry::default(), name: Vec::new(), at: At::Name }
    }

    /// Takes the next bytes, and gives out the entries that they complete.
    ///
    /// # Errors
    /// What `out` returns; the rest of the chunk is not read then.
    pub fn feed<E>(&mut self, mut chunk: &[u8], mut out: impl FnMut(&Entry) -> Result<(), E>) -> Result<(), E> {
        while !chunk.is_empty() {
            let (used, is_whole) = self.step(chunk);
            chunk = chunk.get(used..).unwrap_or_default();
            if is_whole {
                let given = if self.entry.is_empty() { Ok(()) } else { out(&self.entry) };
                self.entry.clear();
                given?;
            }
        }
        Ok(())
    }

    /// Takes some bytes, at least one; whether an entry is complete with them.
    fn step(&mut self, chunk: &[u8]) -> (usize, bool) {
        match self.at {
            At::Name => self.take_name(chunk),
            At::Text(mut room) => {
                let newline = memchr::memchr(b'\n', chunk);
                let text = newline.and_then(|at| chunk.get(..at)).unwrap_or(chunk);
                self.add(text, &mut room);
                self.at = if newline.is_some() { At::Name } else { At::Text(room) };
                (text.len().saturating_add(usize::from(newline.is_some())), false)
            }
            At::Size(room, mut size, had) => {
                let mut used = 0;
                for (to, from) in size.iter_mut().skip(had).zip(chunk) {
                    *to = *from;
                    used += 1;
                }
                let had = had.saturating_add(used);
                self.at = match (u64::from_le_bytes(size), had) {
                    (_, ..8) => At::Size(room, size, had),
                    (0, _) => At::BinaryEnd,
                    (bytes, _) if bytes <= FIELD_BYTES_MAX => At::Binary(room, bytes),
                    _ => self.lose("a field claims more than 1 TiB", false),
                };
                (used, false)
            }
            At::Binary(mut room, left) => {
                let part = usize::try_from(left).ok().and_then(|left| chunk.get(..left)).unwrap_or(chunk);
                self.add(part, &mut room);
                let left = left.saturating_sub(part.len() as u64);
                self.at = if left == 0 { At::BinaryEnd } else { At::Binary(room, left) };
                (part.len(), false)
            }
            At::BinaryEnd => {
                let is_end = chunk.first() == Some(&b'\n');
                self.at = if is_end { At::Name } else { self.lose("no newline behind a binary field", false) };
                (usize::from(is_end), false)
            }
            At::Lost(is_start) => {
                if is_start && chunk.first() == Some(&b'\n') {
                    self.at = At::Name;
                    return (1, true);
                }
                let newline = memchr::memchr(b'\n', chunk);
                self.at = At::Lost(newline.is_some());
                (newline.map_or(chunk.len(), |at| at.saturating_add(1)), false)
            }
        }
    }

    fn take_name(&mut self, chunk: &[u8]) -> (usize, bool) {
        let Some(end) = memchr::memchr2(b'=', b'\n', chunk) else {
            if self.name.len().saturating_add(chunk.len()) > NAME_BYTES_MAX {
                self.at = self.lose("the name of a field is too long", false);
            } else {
                self.name.extend_from_slice(chunk);
            }
            return (chunk.len(), false);
        };
        let used = end.saturating_add(1);
        let is_text = chunk.get(end) == Some(&b'=');
        self.name.extend_from_slice(chunk.get(..end).unwrap_or_default());
        let mut name = std::mem::take(&mut self.name);
        let is_whole = name.is_empty() && !is_text;
        self.at = match name.len() {
            0 if is_whole => At::Name,
            0 => self.lose("a field has no name", false),
            len if len > NAME_BYTES_MAX => self.lose("the name of a field is too long", !is_text),
            _ => {
                let room = self.entry.begin(&name, &self.limits);
                if is_text { At::Text(room) } else { At::Size(room, [0; 8], 0) }
            }
        };
        name.clear();
        self.name = name;
        (used, is_whole)
    }

    fn add(&mut self, part: &[u8], room: &mut Option<usize>) {
        if let Some(room) = room {
            self.entry.add(part, room);
        }
    }

    fn lose(&mut self, what: &'static str, is_start: bool) -> At {
        self.name.clear();
        self.entry.malformed.get_or_insert(what);
        At::Lost(is_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const LIMITS: Limits = Limits { message_bytes: 1 << 16, fields_bytes: 1 << 16 };
    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn parse(chunks: &[&[u8]], limits: Limits) -> Vec<(Pairs, Option<&'static str>)> {
        let mut parser = Parser::new(limits);
        let mut all = Vec::new();
        for chunk in chunks {
            let given = parser.feed(chunk, |entry| {
                let pairs = entry.fields().map(|(name, value, _)| (name.to_vec(), value.to_vec())).collect();
                all.push((pairs, entry.malformed));
                Ok::<(), Infallible>(())
            });
            let Ok(()) = given;
        }
        all
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat()
    }

    fn sample() -> (Vec<u8>, Vec<Pairs>) {
        let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let bytes = [
            b"__CURSOR=s=1;i=2\nMESSAGE=one=1\nFOO=a\nFOO=\nFOO=a\n\n".to_vec(),
            b"\n\n".to_vec(),
            binary("MESSAGE", b"two\nlines\n\n"),
            binary("EMPTY", b""),
            binary("BIN", &[0, 0xff, b'\n', b'\n', 1]),
            b"\n".to_vec(),
            b"CUT=off\n".to_vec(),
        ]
        .concat();
        let first = vec![
            pair("__CURSOR", b"s=1;i=2"),
            pair("MESSAGE", b"one=1"),
            pair("FOO", b"a"),
            pair("FOO", b""),
            pair("FOO", b"a"),
        ];
        let second =
            vec![pair("MESSAGE", b"two\nlines\n\n"), pair("EMPTY", b""), pair("BIN", &[0, 0xff, b'\n', b'\n', 1])];
        (bytes, vec![first, second])
    }

    #[test]
    fn entries_come_out_whole_and_in_order_however_the_stream_is_cut() {
        let (bytes, want) = sample();
        let whole: Vec<_> = want.into_iter().map(|pairs| (pairs, None)).collect();
        for split in 0..=bytes.len() {
            let (a, b) = bytes.split_at(split);
            assert_eq!(parse(&[a, b], LIMITS), whole, "cut at {split}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(parse(&single, LIMITS), whole);
    }

    #[test]
    fn what_is_too_large_is_cut_and_counted() {
        let limits = Limits { message_bytes: 10, fields_bytes: 800 };
        let huge = [7u8; 5000];
        let many = (0..40).flat_map(|i| format!("F{i}=value\n").into_bytes());
        let bytes: Vec<u8> = [binary("HUGE", &huge), binary("MESSAGE", &huge)].concat();
        let bytes: Vec<u8> = bytes.into_iter().chain(b"AFTER=x\n".to_vec()).chain(many).chain(*b"\n").collect();
        let mut parser = Parser::new(limits);
        let mut seen = 0;
        let given = parser.feed(&bytes, |entry| {
            seen += 1;
            let kept: Vec<_> = entry.fields().map(|(name, value, full)| (name.to_vec(), value.len(), full)).collect();
            assert_eq!(kept[0], (b"HUGE".to_vec(), 100, 5000));
            assert_eq!(kept[1], (b"MESSAGE".to_vec(), 10, 5000));
            assert_eq!(kept[2], (b"AFTER".to_vec(), 1, 1));
            assert_eq!(kept.len() as u64 + entry.left_out, 43);
            assert!(entry.left_out > 0 && entry.bytes.len() < 900);
            Ok::<(), Infallible>(())
        });
        let Ok(()) = given;
        assert_eq!(seen, 1);
    }

    #[test]
    fn what_is_malformed_is_said_and_the_next_entry_is_found() {
        let bad: [&[u8]; 4] = [
            b"A=1\n=2\nB=3\n\n",
            b"A=1\nB\n\x01\0\0\0\0\0\0\0xyz\n\n",
            b"A=1\nB\n\xff\xff\xff\xff\xff\xff\xff\xffxyz\n\n",
            &[b"A=1\n".as_slice(), &[b'N'; 300], b"=1\n\n"].concat(),
        ];
        for bad in bad {
            let got = parse(&[bad, b"C=4\n\n"], LIMITS);
            assert_eq!(got.len(), 2, "{got:?}");
            assert_eq!(got[0].0[0], (b"A".to_vec(), b"1".to_vec()));
            assert!(got[0].1.is_some() && got[1] == (vec![(b"C".to_vec(), b"4".to_vec())], None));
        }
    }

    /// Streams that were damaged at random: no panic, bounded memory, the same entries in whatever chunks.
    #[test]
    fn damaged_streams_take_bounded_memory_and_parse_alike_in_any_chunks() {
        let seed = 0x00c0_ffee_u64;
        println!("seed {seed:#x}");
        let mut state = seed;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let (sample, _) = sample();
        let limits = Limits { message_bytes: 64, fields_bytes: 256 };
        for _ in 0..20_000 {
            let mut bytes = sample.repeat(1 + random(2));
            for _ in 0..random(6) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, b"\n=\0\xffA"[random(5)]),
                    _ => drop(bytes.drain(at..bytes.len().min(at + 1 + random(9)))),
                }
                if bytes.is_empty() {
                    bytes.push(b'\n');
                }
            }
            let mut parser = Parser::new(limits);
            let mut held = 0;
            let given = parser.feed(&bytes, |entry| {
                held = held.max(entry.bytes.len());
                Ok::<(), Infallible>(())
            });
            let Ok(()) = given;
            assert!(held <= 256 + 64 + 2 * NAME_BYTES_MAX && parser.name.len() <= NAME_BYTES_MAX, "{held}");
            let (a, b) = bytes.split_at(random(bytes.len()));
            assert_eq!(parse(&[a, b], limits), parse(&[&bytes], limits), "{bytes:?}");
        }
    }
}
