//! The bytes of the protocol, and what the decoders make of any other bytes.

use super::answer::{Event, Place};
use super::*;
use crate::format::header::ClockAnchor;
use crate::format::row::TraceContext;
use crate::gaps::{Gap, GapCause};
use proptest::prelude::*;
use std::format;
use std::string::String;
use std::vec::Vec;

const PLACE: Place = Place { request: 300, position: 2 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn record() -> Record<'static> {
    Record {
        seq: 1000,
        stream: 3,
        severity: 17,
        continued: true,
        boot: 2,
        clock_epoch: 2,
        received_offset_us: 5,
        clock_wall_us: Some(1_700_000_000_000_000),
        synchronised: true,
        event_time_us: Some(-1),
        trace: Some(TraceContext { trace_id: [0xAA; 16], span_id: [0; 8] }),
        body: b"hello\0",
        fields: &[1, b'k', 0],
    }
}

fn answers() -> Vec<Answer<'static>> {
    let clock = ClockAnchor { clock_epoch: 9, wall_us: 5, synchronised: true };
    let software = "lastgaspd 0.1.0";
    let hello = Hello { version: 1, store_id: 7, boot: 3, running: true, message_bytes_max: 644, software };
    let boot = Boot { epoch: 3, first_seq: 10, last_seq: 9, clock, end: BootEnd::Watchdog, torn_bytes: 512 };
    let started = Event::Boot { epoch: 4, first_seq: 10, clock, previous_end: BootEnd::Cut, torn_bytes: 8 };
    let gap = Gap { stream: Some(4), ..Gap::new(5, 9, false, GapCause::Overload) };
    let plain = Record { event_time_us: None, trace: None, continued: false, fields: &[], ..record() };
    std::vec![
        Answer::Hello(hello),
        Answer::Status(Status { next_seq: 1, record_bytes_max: u64::MAX, ..Status::default() }),
        Answer::Stream { id: 300, name: "kernel" },
        Answer::Gap(gap),
        Answer::Gap(Gap::new(1, 0, true, GapCause::LedgerLost)),
        Answer::Boot(boot),
        Answer::Durable { upto: 77 },
        Answer::Record(record()),
        Answer::Record(plain),
        Answer::Event(started),
        Answer::Event(Event::Close { next_seq: 11 }),
        Answer::Progress { next: 65_537 },
        Answer::Fact(Fact { topic: "source", name: "journald", fields: &[2, b'u', b'p', 1, 1] }),
        Answer::Error { code: ErrorCode::Busy, words: "ask again" },
        Answer::End(End { next: 12, more: true, waited: false, durable_upto: 40 }),
    ]
}

fn requests() -> Vec<Request<'static>> {
    let read = Read {
        from: 5,
        to: 900,
        reverse: true,
        records_max: 10,
        bytes_max: 70_000,
        stream: Some("sshd"),
        severity_min: 13,
        since_us: Some(-5),
        until_us: Some(1_700_000_000_000_000),
        wait_ms: 30_000,
    };
    std::vec![
        Request::Hello { version: 1 },
        Request::Status,
        Request::Streams,
        Request::Gaps,
        Request::Boots,
        Request::Checkpoint,
        Request::Read(Read::default()),
        Request::Read(read),
    ]
}

fn wire(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = std::vec![0u8; 1 << 10];
    let len = answer.write(PLACE, &mut out).unwrap();
    out.truncate(len);
    out
}

/// All messages of a line that comes in pieces of `split` bytes.
fn decode_all(mut line: &[u8], split: usize, buf: &mut [u8]) -> (Vec<Vec<u8>>, LineDecoder) {
    let mut decoder = LineDecoder::new();
    let mut messages = Vec::new();
    while !line.is_empty() {
        let (mut piece, rest) = line.split_at(split.clamp(1, line.len()));
        while let Some(message) = decoder.next(&mut piece, buf) {
            messages.push(message.to_vec());
        }
        line = rest;
    }
    (messages, decoder)
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let mut out = [0u8; REQUEST_BYTES_MAX];
    let len = Request::Hello { version: 1 }.write(7, &mut out).unwrap();
    // COBS, kind, number, version, CRC-32C, zero.
    assert_eq!(hex(&out[..len]), "08010701427b234d00");
    let len = requests()[7].write(300, &mut out).unwrap();
    let read = "2507ac02058407010af0a2040104737368640d0109018080f28183898506b0ea01b628099800";
    assert_eq!(hex(&out[..len]), read);
    let sent = "2687ac0202e80703111f0202058080f2818389850601aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0101\
                  0101010101070668656c6c6f0403016b05994670bb00";
    assert_eq!(hex(&wire(&Answer::Record(record()))), sent);
    assert_eq!(hex(&wire(&answers()[3])), "0784ac0202050908040104c6cc473800");
    assert_eq!(hex(&wire(&answers()[14])), "0c8fac02020c0128108f9b8600");
}

#[test]
fn every_message_comes_back_as_it_was_written() {
    let mut buf = [0u8; 1 << 10];
    for answer in answers() {
        let (messages, decoder) = decode_all(&wire(&answer), 1, &mut buf);
        assert_eq!(messages.len(), 1, "{answer:?}");
        assert_eq!(Answer::decode(&messages[0]), Ok((PLACE, answer)));
        assert_eq!(decoder.bad_frames(), 0);
    }
    for request in requests() {
        let mut out = [0u8; REQUEST_BYTES_MAX];
        let len = request.write(u32::MAX, &mut out).unwrap();
        let (messages, _) = decode_all(&out[..len], 3, &mut buf);
        assert_eq!(Request::decode(&messages[0]), Ok((u32::MAX, request)));
    }
}

#[test]
fn the_largest_messages_keep_to_the_stated_sizes() {
    let name = "x".repeat(255);
    let largest = Read {
        from: u64::MAX,
        records_max: u32::MAX,
        bytes_max: u32::MAX,
        stream: Some(&name),
        severity_min: 255,
        since_us: Some(i64::MIN),
        until_us: Some(i64::MIN),
        wait_ms: u32::MAX,
        ..Read::default()
    };
    let mut out = [0u8; REQUEST_BYTES_MAX];
    assert!(Request::Read(largest).write(u32::MAX, &mut out).is_some());
    let name = "x".repeat(256);
    assert_eq!(Request::Read(Read { stream: Some(&name), ..largest }).write(1, &mut out), None, "no such name");

    for len in [0, 400, 253, 254, 255, 5000, 3 << 20] {
        let (body, fields) = (std::vec![1u8; len / 2], std::vec![1u8; len - len / 2]);
        let record = Record {
            seq: u64::MAX,
            stream: u16::MAX,
            boot: u32::MAX,
            clock_epoch: u32::MAX,
            received_offset_us: u64::MAX,
            clock_wall_us: Some(i64::MIN),
            event_time_us: Some(i64::MIN),
            trace: Some(TraceContext { trace_id: [1; 16], span_id: [1; 8] }),
            body: &body,
            fields: &fields,
            ..record()
        };
        let place = Place { request: u32::MAX, position: u32::MAX };
        let mut out = std::vec![0u8; message_bytes_max(len)];
        let written = Answer::Record(record).write(place, &mut out);
        assert!(written.is_some(), "a record of {len} bytes");
        let mut decoder = LineDecoder::new();
        let mut buf = std::vec![0u8; message_bytes_max(len)];
        let message = decoder.next(&mut &out[..written.unwrap()], &mut buf).unwrap();
        assert_eq!(Answer::decode(message), Ok((place, Answer::Record(record))));
    }
}

#[test]
fn a_message_that_does_not_fit_is_refused_at_every_length() {
    for answer in answers() {
        let whole = wire(&answer);
        for len in 0..whole.len() {
            let mut out = std::vec![0xFF; len];
            if let Some(written) = answer.write(PLACE, &mut out) {
                // COBS may save its last byte.
                assert_eq!(&out[..written], &whole[..], "{len} of {}", whole.len());
            }
        }
    }
}

#[test]
fn what_later_versions_append_is_ignored_and_unknown_kinds_are_named() {
    let appended = |message: &[u8]| [message, &[1, 2, 3]].concat();
    let mut buf = [0u8; 1 << 10];
    for answer in answers() {
        let (messages, _) = decode_all(&wire(&answer), 99, &mut buf);
        assert_eq!(Answer::decode(&appended(&messages[0])).unwrap().0, PLACE, "{answer:?}");
    }
    let mut out = [0u8; REQUEST_BYTES_MAX];
    for request in requests() {
        let len = request.write(5, &mut out).unwrap();
        let (messages, _) = decode_all(&out[..len], 99, &mut buf);
        assert_eq!(Request::decode(&appended(&messages[0])), Ok((5, request)));
    }
    let unknown = DecodeError::UnknownKind { kind: 0x33, request: 9, position: 0 };
    assert_eq!(Request::decode(&[0x33, 9, 77, 88]), Err(unknown));
    let unknown = DecodeError::UnknownKind { kind: 0xF0, request: 9, position: 4 };
    assert_eq!(Answer::decode(&[0xF0, 9, 4]), Err(unknown));
    assert_eq!(Request::decode(&[7, 9, 1]), Err(DecodeError::Malformed { request: 9 }));
    // An older node sends fewer numbers.
    let (_, status) = Answer::decode(&[0x82, 1, 0, 42, 41]).unwrap();
    assert_eq!(status, Answer::Status(Status { next_seq: 42, durable_upto: 41, ..Status::default() }));
}

#[test]
fn a_reader_finds_the_next_message_after_garbage_damage_and_overlong_frames() {
    let answer = Answer::Durable { upto: 5 };
    let whole = wire(&answer);
    let mut line = std::vec![9u8; 5000];
    line.push(0);
    line.extend_from_slice(&whole);
    let mut damaged = whole.clone();
    damaged[3] ^= 0x10;
    line.extend_from_slice(&damaged);
    line.extend_from_slice(&[0, 0, 0]);
    line.extend_from_slice(&whole[..4]);
    line.push(0);
    line.extend_from_slice(&whole);
    let mut buf = [0u8; 64];
    let (messages, decoder) = decode_all(&line, 7, &mut buf);
    assert_eq!(messages.len(), 2);
    assert_eq!(decoder.bad_frames(), 3, "garbage, a flipped bit, a frame cut short");
    assert_eq!(Answer::decode(&messages[1]), Ok((PLACE, answer)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_any_split_gives_the_same_messages(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(0u8..4, 0..80),
            (0usize..15).prop_map(|i| wire(&answers()[i])),
        ], 0..12),
        splits in prop::collection::vec(1usize..90, 1..8),
        room in 0usize..200,
    ) {
        let line = pieces.concat();
        let mut buf = std::vec![0u8; room];
        let (at_once, decoder) = decode_all(&line, usize::MAX, &mut buf);
        for split in splits {
            let (messages, same) = decode_all(&line, split, &mut buf);
            prop_assert_eq!(&messages, &at_once);
            prop_assert_eq!(same.bad_frames(), decoder.bad_frames());
            prop_assert_eq!(same.held(), decoder.held());
        }
        for message in at_once {
            let _ = Answer::decode(&message);
            let _ = Request::decode(&message);
        }
    }

    #[test]
    fn arbitrary_messages_never_panic_the_decoders(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for kind in 0..=255u8 {
            let message = [&[kind], &bytes[..]].concat();
            if let Ok((number, request)) = Request::decode(&message) {
                let mut out = [0u8; REQUEST_BYTES_MAX];
                if let Some(len) = request.write(number, &mut out) {
                    let mut buf = [0u8; REQUEST_BYTES_MAX];
                    let again = LineDecoder::new().next(&mut &out[..len], &mut buf).map(<[u8]>::to_vec).unwrap();
                    prop_assert_eq!(Request::decode(&again), Ok((number, request)));
                }
            }
            if let Ok((_, Answer::Fact(fact))) = Answer::decode(&message) {
                crate::format::fields::Fields::new(fact.fields).for_each(drop);
            }
        }
    }
}
