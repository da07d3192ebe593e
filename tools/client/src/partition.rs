//! Partitions of a card or its image: MBR with its chain of logical ones, and GPT.
//!
//! Invariants: the bytes may be anything; what is found lies inside the disk; reading is bounded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The unit of partition tables on cards.
const SECTOR: u64 = 512;
/// More partitions than a card has.
const PARTITIONS_MAX: usize = 128;
/// Longest entry of a GPT that is looked at.
const GPT_ENTRY_MAX: u32 = 4096;
/// Types of the MBR that hold further partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
/// The type of the MBR that guards a GPT.
const PROTECTIVE: u8 = 0xEE;

/// A piece of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as in `/dev/mmcblk0pN`.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len_bytes: u64,
}

/// What holds files, as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext,
    /// FAT.
    Fat,
    /// f2fs.
    F2fs,
    /// btrfs.
    Btrfs,
}

impl FileSystem {
    /// The name that mount knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext4",
            Self::Fat => "vfat",
            Self::F2fs => "f2fs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Options that let it be mounted without being written to.
    #[must_use]
    pub fn options(self) -> &'static str {
        match self {
            Self::Ext => "ro,noload",
            Self::F2fs => "ro,norecovery",
            Self::Fat | Self::Btrfs => "ro",
        }
    }
}

/// The partitions of a disk of this size; none if there is no table.
///
/// # Errors
/// Errors of reading.
pub fn partitions(disk: &File, size_bytes: u64) -> io::Result<Vec<Partition>> {
    let mbr = sector(disk, 0)?;
    let Some(entries) = mbr_entries(&mbr) else { return Ok(Vec::new()) };
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        return gpt(disk, size_bytes);
    }
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(&entries) {
        if EXTENDED.contains(&entry.kind) {
            logical(disk, entry.start, size_bytes, &mut found)?;
        } else if entry.kind != 0 {
            found.extend(inside(number, entry.start, entry.sectors, size_bytes));
        }
    }
    found.sort_by_key(|partition| partition.number);
    Ok(found)
}

/// The file system that begins at this byte.
///
/// # Errors
/// Errors of reading.
pub fn file_system(disk: &File, start: u64) -> io::Result<Option<FileSystem>> {
    let mark = |at: u64, mark: &[u8]| -> io::Result<bool> {
        let mut bytes = vec![0; mark.len()];
        let got = read_up_to(disk, &mut bytes, start.saturating_add(at))?;
        Ok(got == bytes.len() && bytes == mark)
    };
    Ok(if mark(1080, &[0x53, 0xEF])? {
        Some(FileSystem::Ext)
    } else if mark(1024, &[0x10, 0x20, 0xF5, 0xF2])? {
        Some(FileSystem::F2fs)
    } else if mark(0x1_0040, b"_BHRfS_M")? {
        Some(FileSystem::Btrfs)
    } else if mark(82, b"FAT32")? || mark(54, b"FAT1")? {
        Some(FileSystem::Fat)
    } else {
        None
    })
}

/// An entry of an MBR, in sectors.
struct MbrEntry {
    kind: u8,
    start: u64,
    sectors: u64,
}

fn mbr_entries(sector: &[u8]) -> Option<Vec<MbrEntry>> {
    if sector.get(510..512) != Some(&[0x55, 0xAA]) {
        return None;
    }
    let entries: Vec<MbrEntry> = sector.get(446..510)?.chunks_exact(16).filter_map(mbr_entry).collect();
    // A boot sector of a file system has the same two bytes at its end, and text where the entries would be.
    let plausible = sector.get(446..510)?.chunks_exact(16).all(|entry| entry.first().is_some_and(|b| b & 0x7F == 0));
    plausible.then_some(entries)
}

fn mbr_entry(bytes: &[u8]) -> Option<MbrEntry> {
    Some(MbrEntry { kind: *bytes.get(4)?, start: u64::from(u32_at(bytes, 8)?), sectors: u64::from(u32_at(bytes, 12)?) })
}

fn logical(disk: &File, extended: u64, size_bytes: u64, found: &mut Vec<Partition>) -> io::Result<()> {
    let mut at = extended;
    for number in 5..=u32::try_from(PARTITIONS_MAX).unwrap_or(u32::MAX) {
        let sector = sector(disk, at.saturating_mul(SECTOR))?;
        let Some(entries) = mbr_entries(&sector) else { break };
        let mut entries = entries.into_iter();
        if let Some(entry) = entries.next().filter(|entry| entry.kind != 0) {
            found.extend(inside(number, at.saturating_add(entry.start), entry.sectors, size_bytes));
        }
        // The second entry leads to the next table, which lies behind this one.
        let next = entries.next().filter(|entry| EXTENDED.contains(&entry.kind));
        match next.map(|entry| extended.saturating_add(entry.start)).filter(|next| *next > at) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(())
}

fn gpt(disk: &File, size_bytes: u64) -> io::Result<Vec<Partition>> {
    let first = sector(disk, SECTOR)?;
    let last = sector(disk, (size_bytes / SECTOR).saturating_sub(1).saturating_mul(SECTOR))?;
    let is_header = |header: &&Vec<u8>| header.get(..8) == Some(b"EFI PART");
    let Some(header) = [&first, &last].into_iter().find(is_header) else { return Ok(Vec::new()) };
    let (Some(table), Some(count), Some(entry_bytes)) = (u64_at(header, 72), u32_at(header, 80), u32_at(header, 84))
    else {
        return Ok(Vec::new());
    };
    if !(128..=GPT_ENTRY_MAX).contains(&entry_bytes) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for number in 1..=count.min(u32::try_from(PARTITIONS_MAX).unwrap_or(u32::MAX)) {
        let mut entry = [0; 48];
        let at = u64::from(number - 1).saturating_mul(u64::from(entry_bytes));
        let at = table.saturating_mul(SECTOR).saturating_add(at);
        if at >= size_bytes || read_up_to(disk, &mut entry, at)? < entry.len() {
            break;
        }
        let (Some(start), Some(last)) = (u64_at(&entry, 32), u64_at(&entry, 40)) else { break };
        if entry.iter().take(16).any(|byte| *byte != 0) && last >= start {
            found.extend(inside(number, start, (last - start).saturating_add(1), size_bytes));
        }
    }
    Ok(found)
}

/// The partition, cut off at the end of the disk; none if it begins behind it.
fn inside(number: u32, start: u64, sectors: u64, size_bytes: u64) -> Option<Partition> {
    let start = start.checked_mul(SECTOR).filter(|start| *start > 0 && *start < size_bytes)?;
    let len_bytes = sectors.saturating_mul(SECTOR).min(size_bytes - start);
    (len_bytes > 0).then_some(Partition { number, start, len_bytes })
}

fn sector(disk: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 512];
    let got = read_up_to(disk, &mut bytes, at)?;
    bytes.truncate(got);
    Ok(bytes)
}

pub(crate) fn read_up_to(disk: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        // Beyond what the system can count there is nothing.
        let Some(at) = at.checked_add(done as u64).filter(|at| i64::try_from(*at).is_ok()) else { break };
        match disk.read_at(rest, at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const MIB: u64 = 1 << 20;

    fn disk(size_bytes: u64, parts: &[(u64, &[u8])]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(size_bytes).unwrap();
        file.flush().unwrap();
        for (at, bytes) in parts {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    fn table(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        for (at, (kind, start, sectors)) in entries.iter().enumerate() {
            let entry = &mut sector[446 + 16 * at..][..16];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xAA]);
        sector
    }

    #[test]
    fn primary_and_logical_partitions_are_found() {
        let first = table(&[(0x0C, 2048, 2048), (0x83, 4096, 2048), (0x05, 8192, 8192)]);
        let logical_5 = table(&[(0x83, 2048, 1024), (0x05, 4096, 4096)]);
        let logical_6 = table(&[(0x83, 2048, 1024)]);
        let disk = disk(8 * MIB, &[(0, &first), (8192 * 512, &logical_5), ((8192 + 4096) * 512, &logical_6)]);
        let found = partitions(&disk, 8 * MIB).unwrap();
        let starts: Vec<(u32, u64, u64)> = found.iter().map(|p| (p.number, p.start / 512, p.len_bytes / 512)).collect();
        assert_eq!(starts, [(1, 2048, 2048), (2, 4096, 2048), (5, 10_240, 1024), (6, 14_336, 1024)]);
    }

    #[test]
    fn a_gpt_is_read_also_from_its_copy_at_the_end() {
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        let mut entry = vec![1; 128];
        entry[32..40].copy_from_slice(&2048_u64.to_le_bytes());
        entry[40..48].copy_from_slice(&4095_u64.to_le_bytes());
        let guard = table(&[(0xEE, 1, u32::MAX)]);
        for at in [512, 4 * MIB - 512] {
            let disk = disk(4 * MIB, &[(0, &guard), (at, &header), (1024, &entry)]);
            let found = partitions(&disk, 4 * MIB).unwrap();
            assert_eq!(found, [Partition { number: 1, start: MIB, len_bytes: MIB }]);
        }
    }

    #[test]
    fn tables_that_lie_lead_nowhere() {
        for entries in [[(0x83, u32::MAX, u32::MAX)], [(0x83, 0, 10)], [(0x05, 0, 10)], [(0x05, u32::MAX, 1)]] {
            let disk = disk(MIB, &[(0, &table(&entries))]);
            assert_eq!(partitions(&disk, MIB).unwrap(), [], "{entries:?}");
        }
        let round = table(&[(0x83, 1, 1), (0x05, 0, 1)]);
        let disk = disk(MIB, &[(0, &table(&[(0x05, 16, 100)])), (16 * 512, &round)]);
        assert_eq!(partitions(&disk, MIB).unwrap().len(), 1, "a chain that leads back ends");
    }

    #[test]
    fn file_systems_are_told_by_their_marks() {
        let disk = disk(MIB, &[(1080, &[0x53, 0xEF]), (4096 + 82, b"FAT32   "), (65_536 + 0x1_0040, b"_BHRfS_M")]);
        let at = |start| file_system(&disk, start).unwrap();
        assert_eq!((at(0), at(4096)), (Some(FileSystem::Ext), Some(FileSystem::Fat)));
        assert_eq!((at(65_536), at(8192)), (Some(FileSystem::Btrfs), None));
    }

    #[test]
    fn whatever_the_bytes_are_partitions_lie_inside_the_disk() {
        const SIZE: usize = 64 << 10;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        println!("seed {state:#x}");
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..2000 {
            let mut bytes: Vec<u8> = (0..SIZE / 8).flat_map(|_| random().to_le_bytes()).collect();
            for sector in bytes.chunks_exact_mut(512) {
                // Small numbers and right marks lead deeper.
                for entry in sector[446..510].chunks_exact_mut(16) {
                    entry[0] &= 0x80;
                    entry[4] = [0, 0x05, 0x83, 0xEE, 0x0F][usize::from(entry[4] % 5)];
                    entry[9..12].fill(0);
                }
                sector[510..].copy_from_slice(&[0x55, 0xAA]);
            }
            if round % 2 == 0 {
                bytes[512..520].copy_from_slice(b"EFI PART");
                bytes[512 + 72..512 + 80].copy_from_slice(&(random() % 200).to_le_bytes());
                bytes[512 + 84..512 + 88].copy_from_slice(&128_u32.to_le_bytes());
            }
            let disk = disk(SIZE as u64, &[(0, &bytes)]);
            for Partition { start, len_bytes, .. } in partitions(&disk, SIZE as u64).unwrap() {
                assert!(len_bytes > 0 && start.checked_add(len_bytes).unwrap() <= SIZE as u64, "round {round}");
                file_system(&disk, start).unwrap();
            }
        }
    }
}
