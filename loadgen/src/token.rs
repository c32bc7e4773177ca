//! Drives. The token that a query API asks for: out of a file or the environment, never off a command line, which is everybody's
//! to read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub const VARIABLE: &str = "TOLLGATE_TOKEN";
/// No token is so long: a file that was named by mistake is not read to its end.
const BYTES_MAX: usize = 1_024;

#[derive(Clone)]
pub struct Token {
    text: String,
    /// Where it comes from, for messages: the token itself is in none.
    from: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("--token-file {path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error(
        "{from} holds {found}, but must hold one token, as `tollgate token create` prints it: tgt_ and 64 hexadecimal digits"
    )]
    NoToken { from: String, found: String },
}

impl Token {
    /// Out of the file, if one is named, else out of the variable, if that is set to something.
    pub fn read(file: Option<&Path>, variable: Option<&str>) -> Result<Option<Token>, TokenError> {
        if let Some(path) = file {
            let failed = |error| TokenError::File { path: path.to_owned(), error };
            let mut bytes = Vec::new();
            let opened = File::open(path).map_err(failed)?;
            opened.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
            return Token::of(&String::from_utf8_lossy(&bytes), format!("--token-file {}", path.display())).map(Some);
        }
        variable.filter(|text| !text.is_empty()).map(|text| Token::of(text, VARIABLE.to_owned())).transpose()
    }

    /// Any word: which tokens there are is the server's to know.
    fn of(text: &str, from: String) -> Result<Token, TokenError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let found = match &words[..] {
            [word] if word.len() <= BYTES_MAX && word.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Ok(Token { text: (*word).to_owned(), from });
            }
            [] => "nothing".to_owned(),
            [_] => format!("what is not ASCII, or longer than {BYTES_MAX} bytes"),
            words => format!("{} words", words.len()),
        };
        Err(TokenError::NoToken { from, found })
    }

    /// The field of a request.
    pub fn field(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.text)
    }

    pub fn from(&self) -> &str {
        &self.from
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token(from {})", self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_a_token_whatever_is_around_it_and_nothing_shows_it() {
        let token = Token::of("\n tgt_secret\r\n", "a file".to_owned()).unwrap();
        assert_eq!(token.field(), "Authorization: Bearer tgt_secret\r\n");
        assert!(!format!("{token:?}").contains("secret"), "{token:?}");
    }

    #[test]
    fn what_is_no_token_is_said_without_showing_it() {
        for (text, says) in [
            ("", "nothing"),
            (" \n", "nothing"),
            ("secret secret", "2 words"),
            ("secrét", "not ASCII"),
            (&"s".repeat(BYTES_MAX + 1), "longer than 1024 bytes"),
        ] {
            let said = Token::of(text, "a file".to_owned()).unwrap_err().to_string();
            assert!(said.contains(says) && said.starts_with("a file ") && !said.contains("secr"), "{text:?}: {said}");
        }
    }

    #[test]
    fn a_file_goes_before_the_variable_and_an_empty_variable_says_nothing() {
        let missing = Token::read(Some(Path::new("/nowhere/token")), Some("tgt_a")).unwrap_err().to_string();
        assert!(missing.starts_with("--token-file /nowhere/token: "), "{missing}");
        assert_eq!(Token::read(None, Some("tgt_a")).unwrap().unwrap().from(), VARIABLE);
        assert!(Token::read(None, Some("")).unwrap().is_none() && Token::read(None, None).unwrap().is_none());
    }
}
