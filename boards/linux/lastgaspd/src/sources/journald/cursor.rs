//! Where in the journal the source is: the cursor of an entry, as journald writes it, and what it says.
//!
//! `s=SEQNUM_ID;i=SEQNUM;b=BOOT;m=MONOTONIC;t=REALTIME;x=HASH`, numbers in hex. The state entry is the text; while only
//! the first parts of an entry are kept, a newline and the bytes of its body so far follow.
//!
//! Invariant: two cursors mean the same entry if boot, times and hash agree: sequence numbers change when journald
//! moves its entries from `/run` to `/var`.

/// Key of the state entry.
pub const STATE_KEY: &[u8] = b"journald";

/// The cursor of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// As journald wrote it.
    pub text: String,
    /// Which row of sequence numbers.
    pub seqnum_id: String,
    /// Its number in that row.
    pub seqnum: u64,
    /// Which boot.
    pub boot: String,
    /// Microseconds since that boot.
    pub monotonic_us: u64,
    /// Microseconds since 1970.
    pub realtime_us: u64,
    hash: u64,
}

impl Cursor {
    /// Reads what journald writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut cursor = Self { text: text.to_owned(), ..Self::default() };
        let number = |value: &str| u64::from_str_radix(value, 16).ok();
        let mut known = 0;
        for item in text.split(';') {
            let (key, value) = item.split_once('=')?;
            known += 1;
            match key {
                "s" => value.clone_into(&mut cursor.seqnum_id),
                "i" => cursor.seqnum = number(value)?,
                "b" => value.clone_into(&mut cursor.boot),
                "m" => cursor.monotonic_us = number(value)?,
                "t" => cursor.realtime_us = number(value)?,
                "x" => cursor.hash = number(value)?,
                _ => known -= 1,
            }
        }
        (known == 6 && text.len() <= 512 && !text.contains('\n')).then_some(cursor)
    }

    /// It is the same entry.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |c: &Self| (c.monotonic_us, c.realtime_us, c.hash);
        self.boot == other.boot && key(self) == key(other)
    }

    /// It is this entry or one before it in its boot.
    #[must_use]
    pub fn is_at_or_before(&self, other: &Self) -> bool {
        if self.seqnum_id == other.seqnum_id {
            return self.seqnum <= other.seqnum;
        }
        self.boot == other.boot && self.monotonic_us <= other.monotonic_us
    }

    /// Entries of its boot between the two that are not there; 0 if that cannot be told.
    #[must_use]
    pub fn missing_after(&self, before: &Self) -> u64 {
        if self.seqnum_id != before.seqnum_id || self.boot != before.boot {
            return 0;
        }
        self.seqnum.saturating_sub(before.seqnum).saturating_sub(1)
    }
}

/// Where the last run left off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The last entry of which something is kept.
    pub cursor: Cursor,
    /// Only so many bytes of its body are kept, and its fields.
    pub partial_bytes: Option<usize>,
}

impl Place {
    /// Reads a state entry.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (cursor, partial) = match text.split_once('\n') {
            Some((cursor, bytes)) => (cursor, Some(bytes.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { cursor: Cursor::parse(cursor)?, partial_bytes: partial })
    }

    /// The state entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self.partial_bytes {
            Some(bytes) => format!("{}\n{bytes}", self.cursor.text).into_bytes(),
            None => self.cursor.text.clone().into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "s=3754f3c84c84427c8513e3323acbe804;i=5;b=0123456789abcdef0123456789abcdef;m=1388;\
                        t=60a24181e4fa0;x=5f63982c3376ed5f";

    #[test]
    fn cursors_say_where_an_entry_is() {
        let cursor = Cursor::parse(TEXT).unwrap();
        assert_eq!((cursor.seqnum, cursor.monotonic_us, cursor.realtime_us), (5, 5000, 1_700_000_000_004_000));
        for bad in ["", "s=1", "garbage", &TEXT.replace("i=5", "i=zz"), &format!("{TEXT}\n")] {
            assert!(Cursor::parse(bad).is_none(), "{bad}");
        }
        let later = Cursor { seqnum: 9, ..cursor.clone() };
        assert_eq!((later.missing_after(&cursor), cursor.missing_after(&later)), (3, 0));
        let moved = Cursor { seqnum_id: "x".into(), seqnum: 700, ..cursor.clone() };
        assert!(moved.is_same(&cursor) && moved.is_at_or_before(&cursor) && moved.missing_after(&cursor) == 0);
    }

    #[test]
    fn places_survive_the_way_through_the_store() {
        for partial_bytes in [None, Some(0), Some(1 << 20)] {
            let place = Place { cursor: Cursor::parse(TEXT).unwrap(), partial_bytes };
            assert_eq!(Place::decode(&place.encode()), Some(place));
        }
        assert_eq!(Place::decode(b"\xff"), None);
        assert_eq!(Place::decode(format!("{TEXT}\nx").as_bytes()), None);
    }
}
