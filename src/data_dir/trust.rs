//! Which owners and modes a directory or file may have, decided from the result of stat(2).

use std::fs;

use rustix::fs::Stat;

use super::error::Flaw;

/// Mode bits: group and others may write (inode(7)).
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Mode bit: only the owner of a file in the directory may rename or remove it (inode(7)).
const STICKY: u32 = 0o1000;

/// The user for whom a directory must be safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUser {
    /// The effective user id of this process.
    pub uid: u32,
    /// The id that stands for all owners without an id in our user namespace; `None` if there are none.
    /// In a sandbox, the machine's root is one of these owners (user_namespaces(7)).
    pub unmapped: Option<u32>,
}

impl ProcessUser {
    /// The user of this process.
    pub fn current() -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            unmapped: unmapped(),
        }
    }

    /// Whether this owner is our user or root, so that nothing can be protected from it.
    fn trusts(self, owner: u32) -> bool {
        owner == 0 || owner == self.uid || Some(owner) == self.unmapped
    }
}

/// Checks a directory above the data directory: its owner, and all users that may write in it, can
/// replace what is below it.
pub fn check_above(stat: &Stat, user: ProcessUser) -> Result<(), Flaw> {
    if !user.trusts(stat.st_uid) {
        return Err(Flaw::OwnerAbove(stat.st_uid));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0 {
        return Err(Flaw::ModeAbove(stat.st_mode & 0o7777));
    }
    Ok(())
}

/// Checks a link on the path: its owner can change its target.
pub fn check_link(stat: &Stat, user: ProcessUser) -> Result<(), Flaw> {
    match user.trusts(stat.st_uid) {
        true => Ok(()),
        false => Err(Flaw::OwnerOfLink(stat.st_uid)),
    }
}

/// Checks the data directory itself.
pub fn check_own(stat: &Stat, user: ProcessUser) -> Result<(), Flaw> {
    if stat.st_uid != user.uid {
        return Err(Flaw::OwnerOfDirectory(stat.st_uid));
    }
    match stat.st_mode & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => Err(Flaw::ModeOfDirectory(stat.st_mode & 0o7777)),
    }
}

/// Checks a file in it that only our programs write.
pub fn check_file(stat: &Stat, user: ProcessUser) -> Result<(), Flaw> {
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if kind == rustix::fs::FileType::Symlink {
        return Err(Flaw::Link);
    }
    if kind != rustix::fs::FileType::RegularFile {
        return Err(Flaw::NotAFile);
    }
    if stat.st_uid != user.uid {
        return Err(Flaw::OwnerOfFile(stat.st_uid));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Flaw::ModeOfFile(stat.st_mode & 0o7777));
    }
    // Its type differs between architectures.
    #[allow(clippy::useless_conversion)]
    let names = u64::from(stat.st_nlink);
    match names {
        // 0: it was removed a moment ago, and no other user can have it.
        0 | 1 => Ok(()),
        names => Err(Flaw::HardLinks(names)),
    }
}

/// Checks a file that a user has put into `directory`. If no other user can enter the directory, the
/// file's own mode does not matter.
pub fn check_given(stat: &Stat, directory: &Stat, user: ProcessUser) -> Result<(), Flaw> {
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Flaw::NotAFile);
    }
    if !user.trusts(stat.st_uid) {
        return Err(Flaw::OwnerOfFile(stat.st_uid));
    }
    let can_be_entered = directory.st_mode & 0o011 != 0;
    if can_be_entered && stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Flaw::ModeOfFile(stat.st_mode & 0o7777));
    }
    Ok(())
}

/// The id that stands for all owners without one, unless it is also a user's own id
/// (`/proc/self/uid_map`, user_namespaces(7)).
fn unmapped() -> Option<u32> {
    let shown = fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?;
    let shown = shown.trim().parse().ok()?;
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    (!is_mapped(&map, shown)).then_some(shown)
}

/// Whether one of the lines `INSIDE OUTSIDE COUNT` covers this id.
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        // A line that cannot be parsed must not make any owner trusted.
        match numbers.as_slice() {
            [inside, _, count] => (*inside..inside.saturating_add(*count)).contains(&uid.into()),
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_in_a_namespace_without_it_the_id_of_all_others_counts_as_root() {
        assert!(is_mapped("         0          0 4294967295\n", 65_534));
        assert!(is_mapped("0 100000 65536\n", 65_534));
        assert!(!is_mapped("1000 1000 1\n", 65_534));
        assert!(!is_mapped("0 1000 1\n1 100000 65533\n", 65_534));
        assert!(is_mapped("garbage\n", 65_534));
    }
}
