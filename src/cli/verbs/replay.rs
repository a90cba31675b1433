//! `replay`: writes a job's output again, with the pauses that it had. Never touches the job.
//!
//! When a piece is due is `rhythm`'s business.

use std::process::ExitCode;

use tokio::time::{Instant, sleep_until};

use super::export::idle_max;
use crate::cli::{
    connect::{
        find_job,
        link::{self, StartPolicy, Tell},
        target::Connect,
        wire::OutputFrame,
    },
    render::{
        duration, exit_code,
        job::ShownJob,
        outputs::{Broken, Outputs},
        pacing::{Pacing, Speed},
        print,
        recording::{RecordedChunk, RecordedItem, Recording},
    },
};

/// Options of `replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The job's stdout goes to stdout, its stderr to stderr. A job that still runs is replayed up to its \
present end. Ctrl-C ends the replay and does not affect the job.

Exit code: 0, or 1 when bytes are missing: each gap is a line on stderr.")]
pub struct ReplayArgs {
    #[command(flatten)]
    connect: Connect,

    /// The job: a number, an id, a unique name, or `last` for the newest
    #[arg(default_value = "last")]
    job: String,

    /// Factor by which to play faster (2) or slower (0.5), or max for no pauses
    #[arg(long, value_name = "N", default_value = "1", value_parser = Speed::parse)]
    speed: Speed,

    /// Shorten longer pauses to this time, before --speed applies (2, 500ms)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    idle_limit: Option<f64>,
}

/// Plays the recording.
pub async fn replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let idle_max = idle_max(args.idle_limit)?;
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, Tell::Everybody).await? else {
        return find_job::no_jobs_at_all();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let mut recording = Recording::begin(link, &job, None).await?;
    let begin = ShownJob::read(&recording.job)?.started_at;
    let mut player = Player {
        outputs: Outputs::start()?,
        rhythm: Pacing::new(begin, idle_max),
        speed: args.speed,
        began: Instant::now(),
    };
    let mut whole = true;
    while let Some(pieces) = recording.next().await? {
        for piece in pieces {
            match piece {
                RecordedItem::Chunk(chunk) => player.play(chunk).await?,
                RecordedItem::Gap(gap) => {
                    whole = false;
                    print::line(&gap.sentence());
                }
            }
        }
    }
    player.outputs.finish().await.map_err(broken)?;
    Ok(match whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit_code::FAILURE),
    })
}

struct Player {
    outputs: Outputs,
    rhythm: Pacing,
    speed: Speed,
    began: Instant,
}

impl Player {
    /// Waits until a piece is due and writes it.
    async fn play(&mut self, chunk: RecordedChunk) -> anyhow::Result<()> {
        let due = self.speed.due(self.rhythm.next(chunk.at));
        let frame = OutputFrame {
            subscription: 0,
            stream: chunk.stream,
            at: chunk.at,
            offset: chunk.offset,
            data: chunk.data.into(),
        };
        let room = self.outputs.room();
        let in_time = async {
            // A recording longer than any clock is as good as over.
            match self.began.checked_add(due) {
                Some(due) if self.speed != Speed::Max => sleep_until(due).await,
                _ => {}
            }
            room.await.send(frame);
        };
        tokio::select! {
            () = in_time => Ok(()),
            problem = self.outputs.broken() => Err(broken(problem)),
        }
    }
}

fn broken(problem: Broken) -> anyhow::Error {
    match problem.nobody_reads() {
        true => print::NobodyReads.into(),
        false => problem.into(),
    }
}
