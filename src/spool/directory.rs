//! What the spool needs of its directory: that it is there, on a disk that lasts, with room.

use rustix::fs::statvfs;
use std::{fs, io, path::Path};

/// So much of the file system is left free, or [`SHARE`] of it where that is less: for what removes records, and for
/// the neighbours.
const RESERVE: u64 = 32 << 20;
const SHARE: u64 = 10;

/// What is wrong with a directory.
#[derive(Debug)]
pub(super) enum Unfit {
    Missing,
    NotADirectory,
    Unreadable(io::Error),
}

/// Free bytes of the file system, and those of them that stay free.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub free: u64,
    pub reserve: u64,
}

/// Whether it is a directory.
pub(super) fn check(directory: &Path) -> Result<(), Unfit> {
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Unfit::NotADirectory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unfit::Missing),
        Err(error) => Err(Unfit::Unreadable(error)),
    }
}

/// The room that there is.
pub(super) fn space(directory: &Path) -> io::Result<Space> {
    let system = statvfs(directory)?;
    let reserve = RESERVE.min(system.f_blocks.saturating_mul(system.f_frsize) / SHARE);
    Ok(Space { free: system.f_bavail.saturating_mul(system.f_frsize), reserve })
}

/// Has the file read from the disk again, where the kernel has parts of it in memory: after a failed fsync Linux takes pages
/// for written that are not.
///
/// # Errors
/// Where the file system does not do it, or what is still to be written cannot be.
pub(super) fn forget_cached(file: &Path) -> io::Result<()> {
    let file = fs::File::open(file)?;
    // what is not written yet would stay
    file.sync_all()?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// What loses the directory, where something other than the disk does.
#[cfg(target_os = "linux")]
pub(super) fn lost_by(directory: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(directory).ok()?.f_type;
    kind_is_lost_by(kind as u64 & 0xffff_ffff)
}

/// The same, of a kind of file system by its number in linux/magic.h.
#[cfg(target_os = "linux")]
fn kind_is_lost_by(kind: u64) -> Option<&'static str> {
    /// `TMPFS_MAGIC`, `RAMFS_MAGIC` and `OVERLAYFS_SUPER_MAGIC`
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const OVERLAY: u64 = 0x794c_7630;
    match kind {
        TMPFS => Some("it is on a tmpfs, so a restart of the machine loses what is stored"),
        RAMFS => Some("it is on a ramfs, so a restart of the machine loses what is stored"),
        OVERLAY => Some(
            "it is on an overlay, as a container's own files are, so the end of the container loses what is \
             stored; mount a volume there",
        ),
        _ => None,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn lost_by(_: &Path) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_is_read_from_the_disk_again_once_its_cached_parts_are_forgotten() {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        // where the tests are built, since /tmp may be memory
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("file");
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        let file = fs::File::open(&path).unwrap();
        let cached = || {
            let mut byte = [0];
            let mut buffers = [io::IoSliceMut::new(&mut byte)];
            preadv2(&file, &mut buffers, 1 << 19, ReadWriteFlags::NOWAIT)
        };
        if cached() != Ok(1) {
            eprintln!("SKIPPED: this file system does not say what it has in memory");
            return;
        }
        forget_cached(&path).unwrap();
        assert_eq!(cached(), Err(Errno::AGAIN));
        assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
    }

    #[test]
    fn only_a_directory_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(check(directory.path()).is_ok());
        assert!(matches!(check(&file), Err(Unfit::NotADirectory)));
        assert!(matches!(check(&directory.path().join("none")), Err(Unfit::Missing)));
    }

    #[test]
    fn at_most_a_tenth_of_the_file_system_is_kept_free() {
        let space = space(Path::new(".")).unwrap();
        assert!((1..=RESERVE).contains(&space.reserve), "{space:?}");
    }

    /// The numbers are those of linux/magic.h, spelt again.
    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_overlays_are_no_disk() {
        for (kind, name, loses) in [
            (0x0102_1994, "a tmpfs", "the machine"),
            (0x8584_58f6, "a ramfs", "the machine"),
            (0x794c_7630, "an overlay", "the container"),
        ] {
            let why = kind_is_lost_by(kind).unwrap();
            assert!(why.contains(name) && why.contains(loses), "{why}");
        }
        for (kind, name) in [(0xef53, "ext4"), (0x5846_5342, "xfs"), (0x9123_683e, "btrfs"), (0x6969, "nfs")]
        {
            assert_eq!(kind_is_lost_by(kind), None, "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kind_is_that_of_the_directorys_file_system() {
        assert_eq!(lost_by(Path::new("/proc")), None);
        if Path::new("/dev/shm").is_dir() {
            assert!(lost_by(Path::new("/dev/shm")).is_some_and(|why| why.contains("tmpfs")));
        }
    }
}
