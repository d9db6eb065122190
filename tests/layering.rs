//! Imports point down the module list of `src/lib.rs`, so that the list is the map of the crate.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules in the order of `src/lib.rs`.
fn module_order() -> Vec<String> {
    let lib = fs::read_to_string(crate::repository().join("src/lib.rs")).expect("src/lib.rs");
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("source folder") {
        let path = entry.expect("folder entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level module that a source file belongs to; none for `lib.rs` and `main.rs`.
fn module_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(crate::repository().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(module, "lib" | "main")).then(|| module.to_owned())
}

/// Modules named after `crate::` anywhere in the text, in single paths and in `crate::{a, b}` groups.
fn modules_used(text: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.push(name(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut part = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            used.push(name(part.trim()));
                            part.clear();
                            continue;
                        }
                        _ => {}
                    }
                    part.push(c);
                }
                used.push(name(part.trim()));
            }
        }
    }
    used
}

#[test]
fn imports_point_down_the_module_list() {
    let order = module_order();
    assert!(order.len() > 10, "the module list of src/lib.rs was not understood: {order:?}");
    let rank = |module: &str| order.iter().position(|known| known == module);
    let mut files = Vec::new();
    rust_files(&crate::repository().join("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let Some(module) = module_of(&file) else { continue };
        let own = rank(&module).unwrap_or_else(|| panic!("module {module} is missing in src/lib.rs"));
        let text = fs::read_to_string(&file).expect("source file");
        for used in modules_used(&text) {
            if rank(&used).is_some_and(|rank| rank < own) {
                wrong.push(format!("{}: {module} uses {used}, which stands above it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn groups_and_single_paths_are_both_seen() {
    let text = "use crate::table::LakeTable;\nuse crate::{hive::{A, B}, gold};\nfn f() { crate::silver::g() }";
    assert_eq!(modules_used(text), ["table", "hive", "gold", "silver"]);
}
