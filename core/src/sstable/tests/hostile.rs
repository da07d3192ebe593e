//! Payloads that nobody wrote, or that are no longer what was written.

use super::*;

/// Everything that reads a payload, on one that may hold anything.
fn attack(payload: &[u8], frame: &Frame, raw: &mut [u8], slots: &mut [u32]) {
    for is_part in [false, true] {
        if let Some(items) = preamble(payload, is_part) {
            assert!(items.count() <= payload.len());
        }
        if let Some(blocks) = blocks(payload, is_part) {
            assert!(blocks.count() <= payload.len());
        }
        let _ = group_raw_bytes(payload, is_part);
    }
    if let Some(used) = decode(payload, frame, raw, slots) {
        let slots = &slots[..frame.count as usize];
        assert!(slots.iter().all(|slot| (*slot as usize) < used));
        assert_eq!(records_of(&raw[..used], slots).iter().flatten().count(), slots.len());
    }
}

#[test]
fn no_single_bit_flip_panics_or_loops() {
    let mut rows = log_rows(40, 3);
    rows[3].event_time_us = Some(5);
    rows[9].event_time_us = Some(-5);
    rows[4].trace = Some(TraceContext { trace_id: [1; 16], span_id: [2; 8] });
    rows[5].fields = b"fields".to_vec();
    rows[6].body = noise(40, 8);
    for sizes in [SIZES, Sizes { block: 300, ..SIZES }, Sizes { raw: 0, ..SIZES }] {
        let mut payload = payload_of(&rows, 1, sizes);
        let (mut raw, mut slots) = (std::vec![0; 10_000], std::vec![0; rows.len()]);
        for bit in 0..payload.len() * 8 {
            payload[bit / 8] ^= 1 << (bit % 8);
            attack(&payload, &frame_of(1, rows.len()), &mut raw, &mut slots);
            payload[bit / 8] ^= 1 << (bit % 8);
        }
        assert_decodes(&payload, &rows, 1);
    }
}

#[test]
fn every_cut_group_is_refused() {
    let rows = log_rows(40, 3);
    let payload = payload_of(&rows, 1, Sizes { block: 300, ..SIZES });
    let (mut raw, mut slots) = (std::vec![0; 10_000], std::vec![0; rows.len()]);
    for len in 0..payload.len() {
        assert_eq!(decode(&payload[..len], &frame_of(1, rows.len()), &mut raw, &mut slots), None, "{len}");
    }
}

#[test]
fn a_number_that_comes_twice_is_refused() {
    // Two streams of one record each; the second entry's number is set to the first's.
    let rows = [Owned::plain(1, 0, b"one"), Owned::plain(2, 0, b"two")];
    let mut payload = payload_of(&rows, 1, SIZES);
    let second = {
        let group = Group::read(&payload, false).unwrap();
        group.directory.as_ptr() as usize - payload.as_ptr() as usize + usize::from(group.directory[0]) + 1
    };
    assert_eq!(payload[second + 3], 1, "length, packing, stream, first number less the group's");
    payload[second + 3] = 0;
    assert!(blocks(&payload, false).unwrap().map(|i| i.first_seq).eq([1, 1]));
    assert_eq!(decode(&payload, &frame_of(1, 2), &mut [0; 1000], &mut [0; 2]), None);
}

proptest! {
    #[test]
    fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..400), count in 0usize..60) {
        attack(&payload, &frame_of(1, count), &mut [0; 2000], &mut [0; 60]);
    }

    /// As far as the format byte everything is right, so that what is behind it is looked at.
    #[test]
    fn no_group_panics(group in prop::collection::vec(any::<u8>(), 0..400), count in 0u8..60) {
        let head = [3, 0, GROUP_FORMAT, 1, count, 2, 80];
        let payload: Vec<u8> = head.into_iter().chain(group).collect();
        attack(&payload, &frame_of(1, usize::from(count)), &mut [0; 2000], &mut [0; 60]);
    }

    #[test]
    fn no_damage_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        rows in prop::collection::vec(owned(), 1..30),
        raw in prop_oneof![Just(0usize), Just(1 << 16)],
    ) {
        let mut payload = payload_of(&rows, 1, Sizes { block: 500, raw, table: 256 });
        for (at, byte) in damage {
            *at.get_mut(&mut payload) = byte;
        }
        attack(&payload, &frame_of(1, rows.len()), &mut std::vec![0; 40_000], &mut std::vec![0; rows.len()]);
    }
}
