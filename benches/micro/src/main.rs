//! What the core's decisions cost, in instructions and allocations: counted, not timed, so that two runs on any
//! machine say the same and a change of a tenth is a change of the code.
//!
//! `bench-micro` runs its own cases under valgrind and compares them with what is recorded in `figures.tsv`; it fails
//! where one has become dearer by more than a tenth. `bench-micro record` records them. `bench-micro cases` only runs
//! them, for a profiler.

mod cases;
mod figures;
#[path = "../../src/reviews.rs"] // not a library: this crate counts the allocations of whoever links it
mod reviews;
#[path = "../../src/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use figures::{Cost, Figures};

/// What each case is measured in. Callgrind counts within it only, and writes a file each time it is left.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    // without something to return for, a jump would take the place of the call
    std::hint::black_box(());
}

/// Its name as callgrind knows it: spelled out, because of two options with the same pattern it takes only one.
const MEASURED: &str = concat!(env!("CARGO_CRATE_NAME"), "::measured");

/// Which of its string functions glibc takes depends on the processor, and from which size on it copies in another way
/// on its caches: the plain ones, everywhere. What is left is x86-64 with AVX2, as `memchr` looks for it itself.
const PLAIN_STRINGS: &str = "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX512BW,-EVEX,-ERMS,-FSRM,-RTM,-BMI2,\
     -SSSE3,-SSE4_1,-SSE4_2:glibc.cpu.x86_non_temporal_threshold=0x4040000:glibc.cpu.x86_rep_movsb_threshold=0x4040000:\
     glibc.cpu.x86_rep_stosb_threshold=0x4040000";

/// Prints what a case has allocated.
fn measure(name: &str, mut work: impl FnMut()) {
    let counted = allocation_counter::measure(|| measured(&mut work));
    println!("{name}\t{}\t{}", counted.count_total, counted.bytes_total);
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => compare(),
        Some("record") => record(),
        Some("cases") => {
            cases::run(&mut |name, work| measure(name, work));
            Ok(())
        }
        Some(other) => bail!("unknown command {other:?}: record, cases or nothing"),
    }
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("figures.tsv")
}

fn compare() -> Result<()> {
    let path = recorded();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, now) = (Figures::parse(&text)?, counted()?);
    print!("{}", figures::table(&before, &now));
    let dearer = figures::dearer(&before, &now);
    ensure!(
        dearer.is_empty(),
        "more than a tenth dearer than recorded (or not recorded): {}. Where that is wanted, or the compiler is another \
         one than the recorded {}: make bench-micro RECORD=1",
        dearer.join(", "),
        before.compiler
    );
    Ok(())
}

fn record() -> Result<()> {
    let now = counted()?;
    if let Ok(before) =
        std::fs::read_to_string(recorded()).map_err(Into::into).and_then(|t| Figures::parse(&t))
    {
        print!("{}", figures::table(&before, &now));
    }
    Ok(std::fs::write(recorded(), now.to_string())?)
}

/// Runs the cases under valgrind.
fn counted() -> Result<Figures> {
    let directory = std::env::temp_dir().join(format!("bench-micro-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let counted = count_in(&directory);
    std::fs::remove_dir_all(&directory)?;
    counted
}

fn count_in(directory: &Path) -> Result<Figures> {
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--quiet")
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-after={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", directory.join("part").display()))
        .arg(std::env::current_exe()?)
        .arg("cases")
        .env("GLIBC_TUNABLES", PLAIN_STRINGS)
        .output()
        .context("valgrind (Debian's package of that name) cannot be run")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the cases failed under valgrind: {told}");
    let mut costs = Vec::new();
    for (index, line) in String::from_utf8(output.stdout)?.lines().enumerate() {
        let part = directory.join(format!("part.{}", index + 1));
        let part = std::fs::read_to_string(&part).with_context(|| format!("{}: {told}", part.display()))?;
        costs.push(Cost::of(line, figures::instructions(&part)?)?);
    }
    ensure!(!costs.is_empty(), "no case was run");
    let compiler = Command::new("rustc").arg("--version").output()?.stdout;
    Ok(Figures { compiler: String::from_utf8(compiler)?.trim().to_owned(), costs })
}
