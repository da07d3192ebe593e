//! Traces of what the W25Q driver puts on the bus, and how it takes the chip's answers.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use embedded_hal_mock::eh1::delay::NoopDelay;
use embedded_hal_mock::eh1::spi::{Mock, Transaction as Op};

use super::*;

type Trace = Vec<Op<u8>>;

/// A transaction that sends `command` and nothing else.
fn send(command: &[u8]) -> Trace {
    vec![Op::transaction_start(), Op::write_vec(command.to_vec()), Op::transaction_end()]
}

/// A transaction that sends `command` and reads `answer`.
fn ask(command: &[u8], answer: &[u8]) -> Trace {
    vec![Op::transaction_start(), Op::write_vec(command.to_vec()), Op::read_vec(answer.to_vec()), Op::transaction_end()]
}

/// Looks at the status, `times` times, that all see `status`.
fn busy(status: u8, times: usize) -> Trace {
    vec![ask(&[0x05], &[status]); times].concat()
}

/// A page program of `data` with the latch before it, one busy poll, and the check afterwards.
fn program(at: [u8; 3], data: &[u8]) -> Trace {
    let [a, b, c] = at;
    let mut trace = [send(&[0x06]), ask(&[0x05], &[WEL])].concat();
    trace.extend([
        Op::transaction_start(),
        Op::write_vec(vec![0x02, a, b, c]),
        Op::write_vec(data.to_vec()),
        Op::transaction_end(),
    ]);
    trace.extend([ask(&[0x05], &[WEL | BUSY]), ask(&[0x05], &[0])].concat());
    let mut address = u32::from_be_bytes([0, a, b, c]);
    for chunk in data.chunks(CHECK_BYTES) {
        trace.extend(ask(&addressed(0x03, address), chunk));
        address += 64;
    }
    trace
}

/// What a start on an idle, unprotected W25Q80 looks like.
fn start() -> Trace {
    [send(&[0xab]), ask(&[0x05], &[0]), ask(&[0x9f], &[0xef, 0x40, 0x14]), ask(&[0x05], &[0]), ask(&[0x35], &[0])]
        .concat()
}

/// Runs `work` on a chip whose bus expects a start and then `trace`, to the last operation.
fn on_chip<R>(trace: Trace, work: impl FnOnce(&mut W25q<Mock<u8>, NoopDelay>) -> R) -> R {
    let spi = Mock::new(&[start(), trace].concat());
    let mut chip = W25q::new(spi, NoopDelay::new()).unwrap();
    let result = work(&mut chip);
    chip.release().0.done();
    result
}

/// Tries to start on a chip that answers with `trace`.
fn start_error(trace: Trace) -> Error<embedded_hal::spi::ErrorKind> {
    let mut spi = Mock::new(&trace);
    let error = W25q::new(spi.clone(), NoopDelay::new()).map(|_| ()).unwrap_err();
    spi.done();
    error
}

#[test]
fn start_reads_id_and_capacity() {
    on_chip(vec![], |chip| {
        assert_eq!(chip.jedec_id(), JedecId { manufacturer: 0xef, memory_type: 0x40, capacity: 0x14 });
        assert_eq!(chip.capacity(), 1 << 20);
    });
}

#[test]
fn start_waits_for_an_erase_that_a_reset_interrupted() {
    let mut trace = [send(&[0xab]), ask(&[0x05], &[BUSY]), ask(&[0x05], &[BUSY])].concat();
    trace.extend(start().split_off(3));
    let spi = Mock::new(&trace);
    let chip = W25q::new(spi, NoopDelay::new()).unwrap();
    chip.release().0.done();
}

#[test]
fn a_missing_chip_is_named_as_such() {
    let polls = 2 * SECTOR_ERASE_MAX_US as usize / ERASE_POLL_US as usize + 1;
    let ones = [send(&[0xab]), busy(0xff, polls), ask(&[0x9f], &[0xff; 3])].concat();
    let error = start_error(ones);
    assert_eq!(error, Error::UnknownChip(JedecId { manufacturer: 0xff, memory_type: 0xff, capacity: 0xff }));
    let zeros = [send(&[0xab]), ask(&[0x05], &[0]), ask(&[0x9f], &[0; 3])].concat();
    let error = start_error(zeros);
    assert!(error.to_string().contains("00 00 00"), "{error}");
}

#[test]
fn a_chip_that_stays_busy_ends_the_start() {
    let polls = 2 * SECTOR_ERASE_MAX_US as usize / ERASE_POLL_US as usize + 1;
    let trace = [send(&[0xab]), busy(BUSY, polls), ask(&[0x9f], &[0; 3])].concat();
    assert_eq!(start_error(trace), Error::Timeout(Step::Start));
}

#[test]
fn other_makers_and_chips_beyond_three_address_bytes_are_refused() {
    for id in [[0xc8, 0x40, 0x14], [0xef, 0x40, 0x19], [0xef, 0x40, 0x0f]] {
        let trace = [send(&[0xab]), ask(&[0x05], &[0]), ask(&[0x9f], &id)].concat();
        let [manufacturer, memory_type, capacity] = id;
        assert_eq!(start_error(trace), Error::UnknownChip(JedecId { manufacturer, memory_type, capacity }));
    }
}

#[test]
fn every_size_up_to_16_mib_is_taken() {
    for (code, bytes) in [(0x10, 64 << 10), (0x14, 1 << 20), (0x18, 16 << 20)] {
        assert_eq!(JedecId { manufacturer: 0xef, memory_type: 0x40, capacity: code }.bytes(), Some(bytes));
    }
}

#[test]
fn protected_blocks_are_refused_at_the_start() {
    for (status1, status2) in [(0b0000_0100, 0), (0b0001_0000, 0), (0, 0b0100_0000)] {
        let mut trace = start();
        trace.truncate(3 + 4 + 4);
        trace.extend([ask(&[0x05], &[status1]), ask(&[0x35], &[status2])].concat());
        let error = start_error(trace);
        assert_eq!(error, Error::Protected { status1, status2 });
        assert_eq!(StorageError::kind(&error), StorageErrorKind::ReadOnly);
    }
}

#[test]
fn read_sends_the_address_and_takes_any_length() {
    let mut back = [0; 5];
    on_chip(ask(&[0x03, 0x0f, 0xff, 0xfb], &[1, 2, 3, 4, 5]), |chip| chip.read(0x0f_fffb, &mut back)).unwrap();
    assert_eq!(back, [1, 2, 3, 4, 5]);
    on_chip(vec![], |chip| chip.read(0, &mut [])).unwrap();
}

#[test]
fn a_write_is_split_at_page_ends() {
    let data: Vec<u8> = (0..4 + 256 + 8).map(|i: u32| i.to_le_bytes()[0]).collect();
    let trace = [
        program([0x00, 0x10, 0xfc], &data[..4]),
        program([0x00, 0x11, 0x00], &data[4..260]),
        program([0x00, 0x12, 0x00], &data[260..]),
    ];
    on_chip(trace.concat(), |chip| chip.write(0x10fc, &data)).unwrap();
}

#[test]
fn a_write_that_ends_with_its_page_sends_nothing_more() {
    on_chip(program([0, 0, 0xf8], &[7; 8]), |chip| chip.write(0xf8, &[7; 8])).unwrap();
    on_chip(vec![], |chip| chip.write(0x100, &[])).unwrap();
}

#[test]
fn erase_takes_each_sector_and_checks_it() {
    let mut trace = vec![];
    for sector in [0x02_3000_u32, 0x02_4000] {
        trace.extend([send(&[0x06]), ask(&[0x05], &[WEL]), send(&addressed(0x20, sector))].concat());
        trace.extend([ask(&[0x05], &[BUSY]), ask(&[0x05], &[0])].concat());
        for at in (sector..sector + 4096).step_by(CHECK_BYTES) {
            trace.extend(ask(&addressed(0x03, at), &[0xff; CHECK_BYTES]));
        }
    }
    on_chip(trace, |chip| chip.erase(0x02_3000, 0x02_5000)).unwrap();
}

#[test]
fn an_erase_that_leaves_a_bit_is_an_error() {
    let mut second = [0xff; CHECK_BYTES];
    second[3] = 0xfe;
    let trace = [
        send(&[0x06]),
        ask(&[0x05], &[WEL]),
        send(&[0x20, 0, 0x10, 0]),
        ask(&[0x05], &[0]),
        ask(&[0x03, 0, 0x10, 0], &[0xff; CHECK_BYTES]),
        ask(&[0x03, 0, 0x10, 0x40], &second),
    ];
    let error = on_chip(trace.concat(), |chip| chip.erase(0x1000, 0x2000)).unwrap_err();
    assert_eq!(error, Error::Mismatch { at: 0x1043 });
    assert_eq!(StorageError::kind(&error), StorageErrorKind::Worn);
}

#[test]
fn a_program_that_the_chip_dropped_is_an_error() {
    let mut trace = program([0, 0, 0], &[0, 1, 2, 3]);
    trace.truncate(trace.len() - 4);
    trace.extend(ask(&[0x03, 0, 0, 0], &[0, 1, 0xff, 0xff]));
    let error = on_chip(trace, |chip| chip.write(0, &[0, 1, 2, 3])).unwrap_err();
    assert_eq!(error, Error::Mismatch { at: 2 });
}

#[test]
fn without_the_write_latch_nothing_is_sent() {
    for status in [0, BUSY | WEL, 0xff] {
        let trace = [send(&[0x06]), ask(&[0x05], &[status])].concat();
        assert_eq!(on_chip(trace, |chip| chip.write(0, &[0; 4])), Err(Error::WriteDisabled));
    }
}

#[test]
fn waiting_for_a_program_is_bounded() {
    let mut trace = program([0, 0, 0], &[0; 4]);
    // Latch, its check, the command; then busy for ever.
    trace.truncate(3 + 4 + 4);
    let polls = 2 * PROGRAM_MAX_US as usize / PROGRAM_POLL_US as usize + 1;
    trace.extend(busy(WEL | BUSY, polls));
    assert_eq!(on_chip(trace, |chip| chip.write(0, &[0; 4])), Err(Error::Timeout(Step::Program)));
}

#[test]
fn ranges_are_checked_before_the_bus_is_touched() {
    on_chip(vec![], |chip| {
        assert_eq!(chip.write(2, &[0; 4]), Err(Error::NotAligned));
        assert_eq!(chip.write(0, &[0; 3]), Err(Error::NotAligned));
        assert_eq!(chip.write((1 << 20) - 4, &[0; 8]), Err(Error::OutOfBounds));
        assert_eq!(chip.erase(0, 100), Err(Error::NotAligned));
        assert_eq!(chip.erase(0x2000, 0x1000), Err(Error::OutOfBounds));
        assert_eq!(chip.erase(0, (1 << 20) + 4096), Err(Error::OutOfBounds));
        let error = chip.read(1 << 20, &mut [0]).unwrap_err();
        assert_eq!(error, Error::OutOfBounds);
        assert_eq!(NorFlashError::kind(&error), NorFlashErrorKind::OutOfBounds);
    });
}
