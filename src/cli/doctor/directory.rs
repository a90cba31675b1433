//! The data directory: who may use it, which file system it is on, what is free.

use rustix::fs::{StatVfs, StatVfsMountFlags, fstatfs, fstatvfs};
use serde_json::Value;

use super::Check;
use crate::{
    cli::render::size,
    config::{self, ConfigError, Loaded, Origin, Shown},
    data_dir::OwnDir,
    spool::Layout,
};

/// File systems of other machines, by `f_type` (statfs(2)): locks and SQLite's log are not safe there.
const OF_THE_NETWORK: [(i64, &str); 4] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
];

/// File systems in memory.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Checks the directory and its settings. One that is not there yet is made by the first server.
pub fn check(layout: &Layout, info: Option<&Value>) -> Vec<Check> {
    let settings = load(layout);
    // The server's, if one answers; it may have been started with options.
    let told = info.and_then(|info| info["limits"]["free_bytes_min"].as_u64());
    let set = settings
        .as_ref()
        .ok()
        .and_then(|loaded| loaded.settings.free_bytes_min);
    let place = layout.root().display();
    let mut checks = match OwnDir::open(layout.root()) {
        Ok(Some(dir)) => {
            let mut checks = vec![Check::ok("data directory", place.to_string())];
            checks.extend(file_system(&dir, told.or(set)));
            checks
        }
        Ok(None) => vec![Check::ok(
            "data directory",
            format!("{place} is made by the first server"),
        )],
        Err(error) => vec![Check::failure(
            "data directory",
            error.to_string(),
            "name another one with --data-dir, or mend what the message says",
        )],
    };
    checks.push(check_settings(settings));
    checks
}

fn file_system(dir: &OwnDir, free_bytes_min: Option<u64>) -> Vec<Check> {
    let (Ok(kind), Ok(space)) = (fstatfs(dir.file()), fstatvfs(dir.file())) else {
        let advice = "check the mount";
        return vec![Check::failure(
            "file system",
            "it cannot be examined",
            advice,
        )];
    };
    let network = OF_THE_NETWORK
        .iter()
        .find(|(magic, _)| *magic == kind.f_type);
    let is_read_only = space.f_flag.contains(StatVfsMountFlags::RDONLY);
    let place = match network {
        _ if is_read_only => {
            Check::failure("file system", "it is read-only", "mount it for writing")
        }
        Some((_, name)) => Check::warning(
            "file system",
            format!("{name}: locks and syncs are another machine's"),
            "put the data directory on a local disk",
        ),
        None if IN_MEMORY.contains(&kind.f_type) => Check::warning(
            "file system",
            "it is in memory: a restart of the machine loses every job",
            "put the data directory on a disk",
        ),
        None => Check::ok("file system", "local"),
    };
    vec![place, free(&space, free_bytes_min)]
}

/// Whether there is more than what stays free (`free_bytes_min`; if none is set, the server's default).
fn free(space: &StatVfs, free_bytes_min: Option<u64>) -> Check {
    let (free, all) = (
        space.f_bavail * space.f_frsize,
        space.f_blocks * space.f_frsize,
    );
    let kept = free_bytes_min.unwrap_or_else(|| (all / 20).min(256 << 20));
    let found = format!("{} of {} are free", size::short(free), size::short(all));
    match free {
        _ if space.f_favail == 0 && space.f_files > 0 => Check::failure(
            "disk",
            "no inode is free",
            "delete files: no job can store output",
        ),
        free if free <= kept => Check::failure(
            "disk",
            found,
            "make room: jobs wait and submits are refused below free_bytes_min; `cc-executor du` and `prune` help",
        ),
        free if free <= kept.saturating_mul(4) => {
            Check::warning("disk", found, "`cc-executor du` says what takes the space")
        }
        _ => Check::ok("disk", found),
    }
}

fn load(layout: &Layout) -> Result<Loaded, ConfigError> {
    let dir = layout.root().as_os_str().to_owned();
    config::load(None, &[("data_dir".to_owned(), dir)].into())
}

fn check_settings(loaded: Result<Loaded, ConfigError>) -> Check {
    match loaded {
        Ok(loaded) => {
            let is_set = |row: &&Shown| row.origin != Origin::Default && row.name != "data_dir";
            let set = loaded.shown.iter().filter(is_set).count();
            Check::ok(
                "settings",
                format!("{set} are set, the others have their defaults"),
            )
        }
        Err(error) => Check::failure(
            "settings",
            error.to_string(),
            "`cc-executor config` lists all settings",
        ),
    }
}
