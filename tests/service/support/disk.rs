//! File systems of a test's own.

use super::{installed, process, skipped};
use std::{path::Path, process::Command};
use tempfile::TempDir;

/// A small file system in memory, which ends with this.
pub struct TestDisk(TempDir);

impl TestDisk {
    /// `size` as `mount` takes it, `24m` for example. None where this user may not mount, which is said on standard error:
    /// a container's lack of that right is no lack of the machine, and so no failure with `CI=true` either.
    pub fn mount(size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = as_root("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", disk.text()]);
        if let Err(why) = mounted {
            skipped(&format!("no disk could be mounted, which takes root on Linux: {why}"));
            return None;
        }
        Some(disk)
    }

    /// From now on nothing can be written there.
    pub fn make_read_only(&self) {
        as_root("mount", &["-o", "remount,ro", self.text()]).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }
}

impl Drop for TestDisk {
    fn drop(&mut self) {
        // lazily: a test that failed may have it in use
        let _ = as_root("umount", &["-l", self.text()]);
    }
}

/// As this user or else by sudo, which is not to ask for a password.
fn as_root(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = |command: &mut Command| match process::output(command.args(arguments)) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    done(&mut Command::new(program)).or_else(|why| {
        done(Command::new("sudo").args(["-n", program])).map_err(|sudo| format!("{why}; {sudo}"))
    })
}

/// The directory of this machine that is in memory. None where it has none, see [`installed`].
pub fn in_memory() -> Option<TempDir> {
    let made = tempfile::tempdir_in("/dev/shm");
    let missing = made.as_ref().err().map(|error| format!("/dev/shm cannot be used: {error}"));
    installed(missing).then(|| made.unwrap())
}
