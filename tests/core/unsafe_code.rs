//! Unsafe code is in few files. `stress/README.md` lists them, with the amount and the reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for each in fs::read_dir(folder).expect("a folder can be listed") {
        let path = each.expect("a folder can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Counts the unsafe blocks, implementations and functions of a source. Returns `None` if there are none.
fn counted(source: &str) -> Option<[usize; 3]> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let many = |word: &str| code.matches(&format!("unsafe {word}")).count();
    Some([many("{"), many("impl"), many("fn") + many("extern")])
        .filter(|counts| counts.iter().sum::<usize>() > 0)
}

/// Reads the table of files with unsafe code.
fn listed(readme: &str) -> BTreeMap<String, [usize; 3]> {
    let lines = readme.lines().filter(|line| line.starts_with("| [src/"));
    let line = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let file = cells.next()?.strip_prefix('[')?.split(']').next()?.to_owned();
        let mut number = || cells.next()?.parse().ok();
        let counts = [number()?, number()?, number()?];
        cells.next().filter(|why| !why.is_empty())?;
        Some((file, counts))
    };
    lines
        .map(|each| line(each).unwrap_or_else(|| panic!("a file, three numbers and a reason: {each}")))
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn unsafe_code_is_exactly_where_the_readme_says() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let counts = files.iter().filter_map(|path| {
        let source = fs::read_to_string(path).expect("a source can be read");
        let name = path.strip_prefix(root()).expect("the file is below the root").display().to_string();
        Some((name.replace('\\', "/"), counted(&source)?))
    });
    let readme = fs::read_to_string(root().join("stress/README.md")).expect("it can be read");
    assert_eq!(counts.collect::<BTreeMap<_, _>>(), listed(&readme), "the sources, and stress/README.md");
}

#[test]
fn comments_do_not_count_as_unsafe_code() {
    let source = "#![allow(unsafe_code)]\n// unsafe { }\nunsafe { f() };\nunsafe impl S {}\nunsafe extern \"C\" fn g() {}";
    assert_eq!(counted(source), Some([1, 1, 1]));
    assert_eq!(counted("fn f() {}"), None);
}
