//! A Rust file as the rules see it: what it says, and the same with comments, text and test code blanked out.

/// One file. Every view has the same lines, so that a line number means the same in each.
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Comments and the insides of strings and characters are spaces.
    pub code: String,
    /// As `code`, and test code is spaces too. Empty lines only in a file that is all tests.
    pub product: String,
}

impl Source {
    /// `all_tests`: its module is declared under `#[cfg(test)]`, see [`test_modules`].
    pub fn new(path: &str, text: &str, all_tests: bool) -> Source {
        let code = blank_comments_and_text(text);
        let all_tests = all_tests || path.split('/').any(|part| part == "tests");
        let product = if all_tests { blank(&code) } else { blank_tests(&code) };
        Source { path: path.to_owned(), text: text.to_owned(), code, product }
    }

    /// Lines of product code with a place where `word` stands alone, not as part of a longer name.
    pub fn lines_with(view: &str, word: &str) -> Vec<usize> {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (first, last) = (word.chars().next(), word.chars().next_back());
        let found = |line: &str| {
            line.match_indices(word).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + word.len()..].chars().next();
                !(is_part(first) && is_part(before) || is_part(last) && is_part(after))
            })
        };
        view.lines().enumerate().filter(|(_, line)| found(line)).map(|(at, _)| at + 1).collect()
    }

    /// Lines of the file up to the tests at its end: what has to be read to understand it.
    pub fn product_lines(&self) -> usize {
        self.product.lines().collect::<Vec<_>>().iter().rposition(|line| !line.trim().is_empty()).map_or(0, |at| at + 1)
    }

    /// Each function of the product: the line where it begins, its name, how many lines it has.
    pub fn functions(&self) -> Vec<(usize, String, usize)> {
        let bytes = self.product.as_bytes();
        let mut found = Vec::new();
        for (at, _) in self.product.match_indices("fn ") {
            if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
                continue;
            }
            let name: String =
                self.product[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(end) = item_end(bytes, at) else { continue };
            let line = 1 + count_lines(&bytes[..at]);
            if !name.is_empty() {
                found.push((line, name, 1 + count_lines(&bytes[at..end])));
            }
        }
        found
    }
}

/// The files of the modules that `text`, the file at `path`, declares for tests only: `#[cfg(test)] mod name;`.
pub fn test_modules(path: &str, text: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let folder = ["/mod", "/lib", "/main"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem);
    let parts = text.split("#[cfg(test)]\n").skip(1);
    let names = parts.filter_map(|part| part.lines().next()?.trim().strip_prefix("mod ")?.strip_suffix(';'));
    names.map(|name| format!("{folder}/{name}.rs")).collect()
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// One past the end of the item that begins at `from`: its `;`, or the brace that closes its first one.
fn item_end(bytes: &[u8], from: usize) -> Option<usize> {
    let (mut depth, mut round) = (0usize, 0usize);
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round = round.saturating_sub(1),
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 && round == 0 {
                    return Some(at + 1);
                }
            }
            b';' if depth == 0 && round == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Every character but line ends as a space.
fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// Items under `#[cfg(test)]`.
fn blank_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(from) = out.find("#[cfg(test)]") {
        let end = item_end(out.as_bytes(), from + "#[cfg(test)]".len()).unwrap_or(out.len());
        let blanked = blank(&out[from..end]);
        out.replace_range(from..end, &blanked);
    }
    out
}

fn blank_comments_and_text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let (length, keep) = token(bytes, at);
        let piece = text.get(at..at + length).expect("tokens end at the borders of characters");
        if keep {
            out.push_str(piece)
        } else {
            out.push_str(&blank(piece))
        }
        at += length;
    }
    out
}

/// Length of what begins at `at`, and whether it is code.
fn token(bytes: &[u8], at: usize) -> (usize, bool) {
    let rest = &bytes[at..];
    let after_name = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return (rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with(b"/*") {
        return (block_comment(rest), false);
    }
    if rest[0] == b'"' {
        return (string(rest), false);
    }
    if let (b'r', false) = (rest[0], after_name && bytes[at - 1] != b'b')
        && let Some(length) = raw_string(rest)
    {
        return (length, false);
    }
    if rest[0] == b'\''
        && let Some(length) = character(rest)
    {
        return (length, false);
    }
    let character = std::str::from_utf8(&rest[..rest.len().min(4)]).map_or_else(
        |error| std::str::from_utf8(&rest[..error.valid_up_to()]).ok().and_then(|text| text.chars().next()),
        |text| text.chars().next(),
    );
    (character.map_or(1, char::len_utf8), true)
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[2 + hashes..];
    let length = body.windows(end.len()).position(|window| window == end)?;
    Some(2 + hashes + length + end.len())
}

/// A character literal; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|byte| *byte == b'\'').map(|at| at + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(5)])
        .unwrap_or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).expect("valid up to here"));
    let length = text.chars().next()?.len_utf8();
    (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

#[test]
fn comments_text_and_tests_are_blanked_and_code_is_not() {
    let text = "use a; // unsafe\nlet s = \"unsafe \\\" x\"; let c = '\"'; fn f<'a>() {}\nlet r = r#\"un\"safe\"#; let n = '\\n';\n\
                /* unsafe /* x */ */ let é = 'é';\n#[cfg(test)]\nmod tests {\n    fn g() { if x { y } }\n}\nfn h() {}\n";
    let source = Source::new("src/x.rs", text, false);
    assert_eq!(source.code.lines().count(), text.lines().count());
    assert!(
        !source.code.contains("unsafe") && source.code.contains("fn f<'a>() {}") && source.code.contains("let é =")
    );
    assert!(
        source.code.contains("fn g()") && !source.product.contains("fn g()") && source.product.contains("fn h() {}")
    );
    assert_eq!(Source::lines_with("a unsafe_code\nunsafe {\n", "unsafe"), [2]);
}

#[test]
fn functions_are_measured_from_their_name_to_their_brace() {
    let source = Source::new(
        "src/x.rs",
        "trait T { fn no(&self); }\npub fn a(x: [u8; 3]) -> u8 {\n    if b {\n    }\n}\n",
        false,
    );
    assert_eq!(source.functions(), [(1, "no".to_owned(), 1), (2, "a".to_owned(), 4)]);
    assert_eq!(Source::new("src/t/x.rs", "fn a() {}\n", true).functions(), []);
}

#[test]
fn modules_for_tests_only_are_found_where_they_lie() {
    let text = "#[cfg(test)]\nmod model;\nmod real;\n#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(test_modules("src/parse/mod.rs", text), ["src/parse/model.rs"]);
    assert_eq!(test_modules("src/core.rs", text), ["src/core/model.rs"]);
    assert_eq!(test_modules("global/src/lib.rs", text), ["global/src/model.rs"]);
}
