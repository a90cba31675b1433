//! Whom a directory may belong to, and who may write in it: decisions about what stat(2) tells.
//!
//! Nothing is opened here.

use std::fs;

use rustix::fs::Stat;

use super::error::Flaw;

/// Others than the owner may write (inode(7)).
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Only the owner of a thing may rename or remove it (inode(7)).
const STICKY: u32 = 0o1000;

/// For whom a directory is to be safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Our effective user.
    pub uid: u32,
    /// What owners are shown as that have no number in our user namespace, if there are such: in a
    /// sandbox the machine's root is one of them (user_namespaces(7)).
    pub unmapped: Option<u32>,
}

impl Who {
    /// This process.
    pub fn we_are() -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            unmapped: unmapped(),
        }
    }

    /// Whether this owner can do to us what root can.
    fn trusts(self, owner: u32) -> bool {
        owner == 0 || owner == self.uid || Some(owner) == self.unmapped
    }
}

/// A directory on the way: what is below it can be replaced by its owner, and by whoever may write in it.
pub fn check_above(stat: &Stat, who: Who) -> Result<(), Flaw> {
    if !who.trusts(stat.st_uid) {
        return Err(Flaw::OwnerAbove(stat.st_uid));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0 {
        return Err(Flaw::ModeAbove(stat.st_mode & 0o7777));
    }
    Ok(())
}

/// A link on the way: it leads where its owner wants.
pub fn check_link(stat: &Stat, who: Who) -> Result<(), Flaw> {
    match who.trusts(stat.st_uid) {
        true => Ok(()),
        false => Err(Flaw::OwnerOfLink(stat.st_uid)),
    }
}

/// The directory itself.
pub fn check_own(stat: &Stat, who: Who) -> Result<(), Flaw> {
    if stat.st_uid != who.uid {
        return Err(Flaw::OwnerOfIt(stat.st_uid));
    }
    match stat.st_mode & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => Err(Flaw::ModeOfIt(stat.st_mode & 0o7777)),
    }
}

/// A file in it that only we write.
pub fn check_file(stat: &Stat, who: Who) -> Result<(), Flaw> {
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if kind == rustix::fs::FileType::Symlink {
        return Err(Flaw::Link);
    }
    if kind != rustix::fs::FileType::RegularFile {
        return Err(Flaw::NoFile);
    }
    if stat.st_uid != who.uid {
        return Err(Flaw::OwnerOfFile(stat.st_uid));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Flaw::ModeOfFile(stat.st_mode & 0o7777));
    }
    // Its type differs between architectures.
    #[allow(clippy::useless_conversion)]
    let names = u64::from(stat.st_nlink);
    match names {
        // One that was removed a moment ago is nobody else's.
        0 | 1 => Ok(()),
        names => Err(Flaw::Names(names)),
    }
}

/// A file in a directory of this mode that a person has put there. Where nobody else can enter the
/// directory, the file's own mode says nothing.
pub fn check_given(stat: &Stat, directory: &Stat, who: Who) -> Result<(), Flaw> {
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Flaw::NoFile);
    }
    if !who.trusts(stat.st_uid) {
        return Err(Flaw::OwnerOfFile(stat.st_uid));
    }
    let can_be_entered = directory.st_mode & 0o011 != 0;
    if can_be_entered && stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Flaw::ModeOfFile(stat.st_mode & 0o7777));
    }
    Ok(())
}

/// The number that stands for all without one, where it is nobody's own (`/proc/self/uid_map`,
/// user_namespaces(7)).
fn unmapped() -> Option<u32> {
    let shown = fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?;
    let shown = shown.trim().parse().ok()?;
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    (!is_mapped(&map, shown)).then_some(shown)
}

/// Whether one of the lines `INSIDE OUTSIDE COUNT` has this number.
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        // A line that cannot be read must not make anybody trusted.
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
    fn only_in_a_namespace_without_it_the_number_of_all_others_stands_for_root() {
        assert!(is_mapped("         0          0 4294967295\n", 65_534));
        assert!(is_mapped("0 100000 65536\n", 65_534));
        assert!(!is_mapped("1000 1000 1\n", 65_534));
        assert!(!is_mapped("0 1000 1\n1 100000 65533\n", 65_534));
        assert!(is_mapped("garbage\n", 65_534));
    }
}
