//! `replay`: writes a job's output again, with its original pauses (`render::pacing`). Does not
//! affect the job.

use std::process::ExitCode;

use tokio::time::{Instant, sleep_until};

use super::export::idle_max;
use crate::cli::{
    connect::{
        find_job,
        link::{self, StartPolicy, VersionNotice},
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

    /// The job: a number, an id, a name (the newest of it), or `last` for the newest of all
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
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let mut recording = Recording::begin(link, &job, None).await?;
    let begin = ShownJob::read(&recording.job)?.started_at;
    let mut player = Player {
        outputs: Outputs::start()?,
        pacing: Pacing::new(begin, idle_max),
        speed: args.speed,
        began: Instant::now(),
    };
    let mut whole = true;
    while let Some(items) = recording.next().await? {
        for item in items {
            match item {
                RecordedItem::Chunk(chunk) => player.play(chunk).await?,
                RecordedItem::Gap(gap) => {
                    whole = false;
                    print::line(&gap.message());
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
    pacing: Pacing,
    speed: Speed,
    began: Instant,
}

impl Player {
    /// Waits until a chunk is due and writes it.
    async fn play(&mut self, chunk: RecordedChunk) -> anyhow::Result<()> {
        let due = self.speed.due(self.pacing.next(chunk.at));
        let frame = OutputFrame {
            subscription: 0,
            stream: chunk.stream,
            at: chunk.at,
            offset: chunk.offset,
            data: chunk.data.into(),
        };
        let permit = self.outputs.permit();
        let in_time = async {
            // A time that the clock cannot represent never comes: the chunk is written at once.
            match self.began.checked_add(due) {
                Some(due) if self.speed != Speed::Max => sleep_until(due).await,
                _ => {}
            }
            permit.await.send(frame);
        };
        tokio::select! {
            () = in_time => Ok(()),
            problem = self.outputs.broken() => Err(broken(problem)),
        }
    }
}

fn broken(problem: Broken) -> anyhow::Error {
    match problem.reader_left() {
        true => print::ReaderLeft.into(),
        false => problem.into(),
    }
}
