//! Builds the final stage of a Dockerfile without Docker, so that the image tested here is what the Dockerfile says.
//!
//! Earlier stages are not run: their results are given as directories. The final stage has to be made of the few
//! instructions below, starting from `scratch`; any other, and any feature of these that is not understood exactly,
//! is an error that names the line. Guessing would test another image than the one users build.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::image::{self, Image};

/// The final stage of a Dockerfile.
#[derive(Clone, Debug, Default)]
pub struct FinalStage {
    /// What the image says; its name is not in a Dockerfile.
    pub image: Image,
    /// Files from earlier stages, in order.
    pub copies: Vec<Copy>,
}

/// One `COPY --from=STAGE SOURCE... TARGET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Name of the earlier stage.
    pub stage: String,
    /// Absolute paths in that stage.
    pub sources: Vec<String>,
    /// Absolute path in the image; ending in `/` it is a directory.
    pub target: String,
    /// `--chmod`, where given.
    pub mode: Option<u32>,
}

/// Builds the final stage of `dockerfile` as the image archive `out` called `name`, and returns the image's digest.
/// `stages` gives the root directory of each earlier stage that is copied from; one that is not is an error.
pub fn build(
    dockerfile: &Path,
    stages: &BTreeMap<String, PathBuf>,
    name: &str,
    out: &Path,
) -> Result<String> {
    let text =
        fs::read_to_string(dockerfile).with_context(|| format!("cannot read {}", dockerfile.display()))?;
    let mut stage = FinalStage::parse(&text).with_context(|| dockerfile.display().to_string())?;
    name.clone_into(&mut stage.image.name);
    for given in stages.keys() {
        ensure!(
            stage.copies.iter().any(|copy| copy.stage == *given),
            "nothing is copied from the stage {given}"
        );
    }
    let root = Scratch::new(out)?;
    if !stage.image.workdir.is_empty() {
        make_dir(&root.0, &stage.image.workdir)?;
    }
    for copy in &stage.copies {
        let from = stages
            .get(&copy.stage)
            .with_context(|| format!("the directory of the stage {} is not given", copy.stage))?;
        copy.apply(from, &root.0)?;
    }
    image::pack(&root.0, &stage.image, out)
}

/// The image's files, in a directory beside the archive while it is written.
struct Scratch(PathBuf);

impl Scratch {
    fn new(out: &Path) -> Result<Self> {
        let mut name = out.as_os_str().to_owned();
        name.push(format!(".{}.rootfs", std::process::id()));
        let dir = PathBuf::from(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // what cannot be removed stays as a few MB beside the archive, under a name that says what it is
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl FinalStage {
    /// Reads a whole Dockerfile; only its last stage is understood.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = instructions(text)?;
        let is_from = |line: &Instruction| line.word == "FROM";
        let last = lines.iter().rposition(is_from).context("there is no FROM")?;
        let names: Vec<String> =
            lines[..last].iter().filter(|line| is_from(line)).filter_map(stage_name).collect();
        let mut stage = Self::default();
        for line in &lines[last..] {
            stage
                .read(line, &names)
                .with_context(|| format!("line {}: {} {}", line.number, line.word, line.rest))?;
        }
        ensure!(!stage.image.entrypoint.is_empty(), "the final stage has no ENTRYPOINT");
        Ok(stage)
    }

    fn read(&mut self, line: &Instruction, stages: &[String]) -> Result<()> {
        let rest = line.rest.as_str();
        ensure!(!rest.contains('$'), "variables are not understood in the final stage");
        match line.word.as_str() {
            "FROM" => ensure!(
                rest == "scratch" || rest.starts_with("scratch "),
                "only a final stage from scratch is understood"
            ),
            "COPY" => self.copies.push(Copy::parse(rest, stages)?),
            "USER" => self.image.user = one_word(rest)?,
            "WORKDIR" => self.image.workdir = absolute(&one_word(rest)?)?,
            "ENV" => {
                self.image.env.extend(pairs(rest)?.into_iter().map(|(key, value)| format!("{key}={value}")));
            }
            "LABEL" => self.image.labels.extend(pairs(rest)?),
            "EXPOSE" => {
                for port in words(rest)? {
                    self.image.exposed.push(exposed(&port)?);
                }
            }
            "ENTRYPOINT" => self.image.entrypoint = exec_form(rest)?,
            "CMD" => self.image.cmd = exec_form(rest)?,
            _ => bail!("this instruction is not understood in the final stage"),
        }
        Ok(())
    }
}

impl Copy {
    fn parse(rest: &str, stages: &[String]) -> Result<Self> {
        ensure!(!rest.contains('['), "neither the JSON form nor patterns are understood");
        let (mut stage, mut mode, mut paths) = (None, None, Vec::new());
        for word in words(rest)? {
            if let Some(name) = word.strip_prefix("--from=") {
                stage = Some(name.to_owned());
            } else if let Some(octal) = word.strip_prefix("--chmod=") {
                mode =
                    Some(u32::from_str_radix(octal, 8).with_context(|| format!("{octal} is no octal mode"))?);
            } else if word.starts_with("--") {
                bail!("the flag {word} is not understood");
            } else {
                ensure!(!word.contains(['*', '?']), "patterns are not understood");
                paths.push(absolute(&word)?);
            }
        }
        let stage = stage.context("files that are in no earlier stage: write --from=STAGE")?;
        ensure!(stages.contains(&stage), "no earlier stage is called {stage}");
        let target = paths.pop().context("the target is missing")?;
        ensure!(!paths.is_empty(), "the source or the target is missing");
        ensure!(paths.len() == 1 || target.ends_with('/'), "several sources need a target that ends in /");
        Ok(Self { stage, sources: paths, target, mode })
    }

    /// What Docker does: a file goes to the target, or under its own name into a target that ends in `/`; of a
    /// directory the contents are copied.
    fn apply(&self, from: &Path, root: &Path) -> Result<()> {
        for source in &self.sources {
            let path = inside(from, source);
            let told = || format!("COPY {source}: cannot read {}", path.display());
            if fs::metadata(&path).with_context(told)?.is_dir() {
                make_dir(root, &self.target)?;
                copy_dir(&path, &inside(root, &self.target), self.mode)?;
            } else {
                let mut target = self.target.clone();
                if target.ends_with('/') {
                    target.push_str(source.rsplit('/').next().unwrap_or_default());
                }
                if let Some((parent, _)) = target.rsplit_once('/') {
                    make_dir(root, parent)?;
                }
                copy_file(&path, &inside(root, &target), self.mode).with_context(told)?;
            }
        }
        Ok(())
    }
}

fn copy_file(from: &Path, to: &Path, mode: Option<u32>) -> Result<()> {
    fs::copy(from, to)?; // keeps the mode
    if let Some(mode) = mode {
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn copy_dir(from: &Path, to: &Path, mode: Option<u32>) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            fs::create_dir_all(&to)?;
            let kept = entry.metadata()?.permissions().mode();
            fs::set_permissions(&to, fs::Permissions::from_mode(mode.unwrap_or(kept)))?;
            copy_dir(&entry.path(), &to, mode)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &to)?;
        } else {
            copy_file(&entry.path(), &to, mode)?;
        }
    }
    Ok(())
}

/// Makes a directory and its parents as Docker does: open to everybody, whatever the umask here.
fn make_dir(root: &Path, path: &str) -> Result<()> {
    let mut dir = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        dir.push(part);
        if !dir.is_dir() {
            fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn inside(root: &Path, absolute: &str) -> PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

struct Instruction {
    /// Of its first line, from 1.
    number: usize,
    /// In capitals.
    word: String,
    rest: String,
}

/// Joins continued lines and drops comments, as Docker does: also comments between continued lines.
fn instructions(text: &str) -> Result<Vec<Instruction>> {
    let mut done: Vec<Instruction> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix('#') {
            let directive = comment.trim_start().to_ascii_lowercase();
            ensure!(
                !directive.starts_with("escape="),
                "line {}: another escape character is not understood",
                index + 1
            );
            continue;
        }
        if trimmed.is_empty() {
            continue;
        }
        let (number, mut text) = open.take().unwrap_or((index + 1, String::new()));
        if let Some(part) = trimmed.strip_suffix('\\') {
            text.push_str(part);
            open = Some((number, text));
            continue;
        }
        text.push_str(trimmed);
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        // in an earlier stage too: its lines could look like a FROM
        ensure!(!rest.contains("<<"), "line {number}: here-documents are not understood");
        done.push(Instruction { number, word: word.to_ascii_uppercase(), rest: rest.trim().to_owned() });
    }
    ensure!(open.is_none(), "the last line is continued");
    Ok(done)
}

/// `FROM IMAGE AS NAME`.
fn stage_name(from: &Instruction) -> Option<String> {
    let words: Vec<&str> = from.rest.split_whitespace().collect();
    let at = words.iter().position(|word| word.eq_ignore_ascii_case("as"))?;
    words.get(at + 1).map(|name| (*name).to_owned())
}

/// Words in the shell's sense: quotes group, a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut done, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(q)) if c == q => quote = None,
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(chars.next().context("a backslash at the end")?);
            }
            (c, None) if c.is_whitespace() => done.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    ensure!(quote.is_none(), "a quote is not closed");
    done.extend(word);
    Ok(done)
}

fn one_word(text: &str) -> Result<String> {
    match words(text)?.as_slice() {
        [word] if !word.is_empty() => Ok(word.clone()),
        _ => bail!("one word is expected"),
    }
}

/// `key=value ...`
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("'{word}' is not key=value"),
    };
    let pairs = words(text)?.into_iter().map(pair).collect::<Result<Vec<_>>>()?;
    ensure!(!pairs.is_empty(), "nothing is set");
    Ok(pairs)
}

/// `["program", "argument"]`. The other form needs a shell, which an image from scratch does not have.
fn exec_form(text: &str) -> Result<Vec<String>> {
    serde_json::from_str(text).context("only the JSON form works without a shell")
}

fn exposed(port: &str) -> Result<String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    ensure!(number.parse::<u16>().is_ok_and(|number| number > 0), "'{port}' is not a port");
    ensure!(["tcp", "udp", "sctp"].contains(&protocol), "'{port}' has an unknown protocol");
    Ok(format!("{number}/{protocol}"))
}

fn absolute(path: &str) -> Result<String> {
    let normal = |part: Component| matches!(part, Component::RootDir | Component::Normal(_));
    ensure!(
        path.starts_with('/') && Path::new(path).components().all(normal),
        "'{path}' is not an absolute path"
    );
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "FROM a AS build\nFROM scratch\nCOPY --from=build /out/a /a\nENTRYPOINT [\"/a\"]\n";

    fn error(text: &str) -> String {
        format!("{:#}", FinalStage::parse(text).unwrap_err())
    }

    #[test]
    fn the_projects_dockerfile_is_understood() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Dockerfile");
        let stage = FinalStage::parse(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(stage.image.user, "65532:65532");
        assert_eq!(stage.image.entrypoint, ["/external-ip-controller"]);
        assert_eq!(stage.image.cmd, ["run"]);
        assert_eq!(stage.image.exposed, ["8888/tcp", "8443/tcp", "8080/tcp"]);
        assert_eq!(stage.copies.len(), 1);
        assert!(stage.image.labels.iter().any(|(key, _)| key == "org.opencontainers.image.version"));
    }

    #[test]
    fn every_known_instruction_is_read_as_docker_reads_it() {
        let stage = FinalStage::parse(
            "# syntax line\nfrom a as one\nRUN x \\\n  # a comment between\n  && y\nFROM b AS two\nFROM scratch AS last\n\
             COPY --from=one --chmod=0555 /x /y /bin/\nCOPY --from=two /d /d\nuser 1:2\nWORKDIR /w\n\
             ENV A=1 B=\"two words\" C=a\\ b\nLABEL k='v\"' \\\n      l=\nEXPOSE 1 2/udp\nENTRYPOINT [\"/x\", \"a\"]\nCMD [\"b\"]",
        )
        .unwrap();
        assert_eq!(
            stage.copies[0],
            Copy {
                stage: "one".into(),
                sources: vec!["/x".into(), "/y".into()],
                target: "/bin/".into(),
                mode: Some(0o555)
            }
        );
        assert_eq!(stage.copies[1].stage, "two");
        assert_eq!(stage.image.user, "1:2");
        assert_eq!(stage.image.workdir, "/w");
        assert_eq!(stage.image.env, ["A=1", "B=two words", "C=a b"]);
        assert_eq!(stage.image.labels, [("k".into(), "v\"".into()), ("l".into(), String::new())]);
        assert_eq!(stage.image.exposed, ["1/tcp", "2/udp"]);
        assert_eq!(stage.image.entrypoint, ["/x", "a"]);
        assert_eq!(stage.image.cmd, ["b"]);
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        for (more, told) in [
            ("RUN x", "line 5: RUN x: this instruction"),
            ("VOLUME /x", "this instruction"),
            ("HEALTHCHECK NONE", "this instruction"),
            ("ADD a /b", "this instruction"),
            ("COPY a /b", "not an absolute path"),
            ("COPY /a /b", "--from=STAGE"),
            ("COPY --from=other /a /b", "no earlier stage is called other"),
            ("COPY --from=build --chown=1 /a /b", "--chown=1 is not understood"),
            ("COPY --from=build --chmod=u+x /a /b", "octal"),
            ("COPY --from=build /a* /b", "patterns"),
            ("COPY --from=build [\"/a\", \"/b\"]", "JSON"),
            ("COPY --from=build /a", "missing"),
            ("COPY --from=build /a /b /c", "ends in /"),
            ("COPY --from=build /../a /b", "not an absolute path"),
            ("COPY --from=build <<EOF /b", "here-documents"),
            ("CMD run", "JSON form"),
            ("ENV A 1", "not key=value"),
            ("ENV A=$B", "variables"),
            ("LABEL a=\"b", "not closed"),
            ("USER", "one word"),
            ("EXPOSE 70000", "not a port"),
            ("EXPOSE 1/http", "unknown protocol"),
            ("USER a \\", "continued"),
        ] {
            let got = error(&format!("{SMALL}{more}"));
            assert!(got.contains(told), "{more}: {got}");
        }
        assert!(error("FROM a").contains("only a final stage from scratch"));
        assert!(error("FROM scratch").contains("no ENTRYPOINT"));
        assert!(error("USER 1").contains("no FROM"));
        assert!(error("# escape=`\nFROM scratch").contains("escape"));
    }

    #[test]
    fn the_archive_holds_what_is_copied_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("dockerfile-{}", std::process::id()));
        fs::create_dir_all(dir.join("stage/out/sub")).unwrap();
        fs::write(dir.join("stage/out/a"), "program").unwrap();
        fs::write(dir.join("stage/out/sub/b"), "more").unwrap();
        fs::write(dir.join("stage/secret"), "left behind").unwrap();
        fs::set_permissions(dir.join("stage/out/a"), fs::Permissions::from_mode(0o700)).unwrap();
        let file = dir.join("Dockerfile");
        fs::write(
            &file,
            format!("{SMALL}COPY --from=build --chmod=0555 /out/a /bin/\nCOPY --from=build /out /all\n"),
        )
        .unwrap();
        let stages = BTreeMap::from([("build".to_owned(), dir.join("stage"))]);
        let out = dir.join("image.tar");
        build(&file, &stages, "hello:1", &out).unwrap();

        let mut found = Vec::new();
        let mut layer = Vec::new();
        let mut archive = tar::Archive::new(fs::File::open(&out).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            if bytes.starts_with(b"a\0") {
                layer = bytes;
            }
        }
        let mut archive = tar::Archive::new(layer.as_slice());
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            found.push(format!("{} {:o}", entry.path().unwrap().display(), entry.header().mode().unwrap()));
        }
        assert_eq!(
            found.iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(),
            ["a", "all/", "all/a", "all/sub/", "all/sub/b", "bin/", "bin/a"]
        );
        assert!(found.contains(&"a 700".to_owned()) && found.contains(&"bin/a 555".to_owned()));
        assert!(found.contains(&"all/ 755".to_owned()));
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "stage, Dockerfile, image.tar: {left:?}");

        let missing = build(&file, &BTreeMap::new(), "hello:1", &out).unwrap_err().to_string();
        assert!(missing.contains("stage build is not given"), "{missing}");
        let mut more = stages;
        more.insert("other".to_owned(), dir.clone());
        let unused = build(&file, &more, "hello:1", &out).unwrap_err().to_string();
        assert!(unused.contains("nothing is copied from the stage other"), "{unused}");
        fs::remove_dir_all(dir).unwrap();
    }
}
