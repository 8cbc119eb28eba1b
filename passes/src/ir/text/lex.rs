//! Tokens of the textual syntax, their positions, and the comment behind a token on its line.

use std::ops::Range;

/// Text that is not in the ONNX textual syntax, and its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line of the offending token, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was expected, or what is wrong.
    pub message: String,
}

impl ParseError {
    pub(super) fn at(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }
}

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// An identifier or a keyword.
    Word(&'a str),
    /// A quoted string, unescaped; bytes, since attributes need not be UTF-8.
    Text(Vec<u8>),
    /// An integer literal.
    Integer(&'a str),
    /// A literal with a point or an exponent, or `-inf` and the like.
    Float(&'a str),
    /// `=>`.
    Arrow,
    /// Any other character.
    Mark(char),
    /// The end of the text.
    End,
}

impl Token<'_> {
    fn describe(&self) -> String {
        match self {
            Self::Word(text) | Self::Integer(text) | Self::Float(text) => format!("`{text}`"),
            Self::Text(_) => "a string".to_owned(),
            Self::Arrow => "`=>`".to_owned(),
            Self::Mark(mark) => format!("`{mark}`"),
            Self::End => "the end of the text".to_owned(),
        }
    }
}

/// Whether a number may be spelled like this: `inf`, `infinity`, `nan` in any case.
pub(super) fn is_float_word(word: &str) -> bool {
    ["inf", "infinity", "nan"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Reads tokens one ahead of the parser.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    /// Where the token after `token` begins, trivia included.
    next: usize,
    token: Token<'a>,
    start: usize,
    comment: Option<Range<usize>>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, ParseError> {
        Self::starting_at(text, 0)
    }

    fn starting_at(text: &'a str, offset: usize) -> Result<Self, ParseError> {
        let mut cursor = Self { text, next: offset, token: Token::End, start: offset, comment: None };
        cursor.advance()?;
        Ok(cursor)
    }

    /// The next token.
    pub(super) fn peek(&self) -> &Token<'a> {
        &self.token
    }

    /// A cursor over the comment between the last token and the next one, if the comment is on the last token's line.
    pub(super) fn trailing_comment(&self) -> Result<Option<Cursor<'a>>, ParseError> {
        self.comment.clone().map(|range| Self::starting_at(&self.text[..range.end], range.start)).transpose()
    }

    /// An error at the next token.
    pub(super) fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::at(self.text, self.start, message)
    }

    /// The error that the next token is not the expected one.
    pub(super) fn expected(&self, what: &str) -> ParseError {
        self.error(format!("expected {what}, found {}", self.token.describe()))
    }

    /// The position of the next token.
    pub(super) fn position(&self) -> usize {
        self.start
    }

    /// An error at an earlier [`Cursor::position`].
    pub(super) fn error_at(&self, position: usize, message: impl Into<String>) -> ParseError {
        ParseError::at(self.text, position, message)
    }

    /// Reads a token.
    pub(super) fn advance(&mut self) -> Result<Token<'a>, ParseError> {
        self.skip_trivia();
        self.start = self.next;
        let token = self.scan()?;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// Reads this character if it is the next token.
    pub(super) fn accept(&mut self, mark: char) -> Result<bool, ParseError> {
        let found = self.token == Token::Mark(mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Reads this character.
    pub(super) fn expect(&mut self, mark: char) -> Result<(), ParseError> {
        if self.accept(mark)? { Ok(()) } else { Err(self.expected(&format!("`{mark}`"))) }
    }

    /// Reads an unquoted identifier.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        let Token::Word(word) = self.token else { return Err(self.expected(what)) };
        self.advance()?;
        Ok(word)
    }

    /// Reads a quoted string of any bytes.
    pub(super) fn bytes(&mut self, what: &str) -> Result<Vec<u8>, ParseError> {
        let Token::Text(bytes) = &self.token else { return Err(self.expected(what)) };
        let bytes = bytes.clone();
        self.advance()?;
        Ok(bytes)
    }

    /// Reads a quoted string of UTF-8.
    pub(super) fn text(&mut self, what: &str) -> Result<String, ParseError> {
        let position = self.start;
        String::from_utf8(self.bytes(what)?).map_err(|_| self.error_at(position, format!("{what} is not UTF-8")))
    }

    /// Reads an identifier, quoted or not.
    pub(super) fn name(&mut self, what: &str) -> Result<String, ParseError> {
        if matches!(self.token, Token::Text(_)) { self.text(what) } else { Ok(self.word(what)?.to_owned()) }
    }

    /// Reads an integer.
    pub(super) fn integer(&mut self, what: &str) -> Result<i64, ParseError> {
        let Token::Integer(digits) = self.token else { return Err(self.expected(what)) };
        let value = digits.parse().map_err(|_| self.error(format!("`{digits}` does not fit 64 bits")))?;
        self.advance()?;
        Ok(value)
    }

    fn skip_trivia(&mut self) {
        self.comment = None;
        let mut same_line = true;
        loop {
            let rest = &self.text[self.next..];
            let Some(first) = rest.chars().next() else { return };
            if first == '#' {
                let length = rest.find('\n').unwrap_or(rest.len());
                if same_line {
                    self.comment = Some(self.next + 1..self.next + length);
                }
                self.next += length;
            } else if first.is_ascii_whitespace() || first == '\u{b}' {
                same_line &= first != '\n';
                self.next += 1;
            } else {
                return;
            }
        }
    }

    fn scan(&mut self) -> Result<Token<'a>, ParseError> {
        let rest = &self.text[self.next..];
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        match first {
            '"' => self.scan_text(),
            '=' if rest.starts_with("=>") => {
                self.next += 2;
                Ok(Token::Arrow)
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                Ok(Token::Word(self.take(prefix(rest, |c| c.is_ascii_alphanumeric() || c == '_'))))
            }
            '-' | '0'..='9' => self.scan_number(rest),
            _ => {
                self.next += first.len_utf8();
                Ok(Token::Mark(first))
            }
        }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.text[self.next..self.next + length];
        self.next += length;
        taken
    }

    /// `-`, then digits with at most one point and an exponent, or a word for infinity or not-a-number.
    fn scan_number(&mut self, rest: &'a str) -> Result<Token<'a>, ParseError> {
        let sign = usize::from(rest.starts_with('-'));
        let unsigned = &rest[sign..];
        let word = prefix(unsigned, |c| c.is_ascii_alphabetic());
        if is_float_word(&unsigned[..word]) {
            return Ok(Token::Float(self.take(sign + word)));
        }
        let digits = prefix(unsigned, |c| c.is_ascii_digit());
        if digits == 0 {
            return Err(self.error("expected a digit after `-`"));
        }
        let mut length = sign + digits;
        if rest[length..].starts_with('.') {
            length += 1 + prefix(&rest[length + 1..], |c| c.is_ascii_digit());
        }
        if rest[length..].starts_with(['e', 'E']) {
            length += 1;
            length += usize::from(rest[length..].starts_with(['+', '-']));
            length += prefix(&rest[length..], |c| c.is_ascii_digit());
        }
        let literal = self.take(length);
        Ok(if length == sign + digits { Token::Integer(literal) } else { Token::Float(literal) })
    }

    /// A string: a backslash escapes the next character, and `\xHH` stands for a byte.
    fn scan_text(&mut self) -> Result<Token<'a>, ParseError> {
        let source = self.text.as_bytes();
        let mut bytes = Vec::new();
        let mut at = self.next + 1;
        loop {
            match (source.get(at), source.get(at + 1)) {
                (Some(b'"'), _) => break,
                (Some(b'\\'), Some(b'x')) => {
                    bytes.push(self.hexadecimal(at)?);
                    at += 4;
                }
                (Some(b'\\'), Some(&escaped)) => {
                    bytes.push(escaped);
                    at += 2;
                }
                (None, _) | (Some(b'\\'), None) => return Err(self.error("string without closing `\"`")),
                (Some(&plain), _) => {
                    bytes.push(plain);
                    at += 1;
                }
            }
        }
        self.next = at + 1;
        Ok(Token::Text(bytes))
    }

    fn hexadecimal(&self, at: usize) -> Result<u8, ParseError> {
        let digits = self.text.get(at + 2..at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.error_at(at, "expected two hexadecimal digits after `\\x`"))
    }
}

/// Length in bytes of the leading characters that satisfy `test`.
fn prefix(text: &str, test: impl Fn(char) -> bool) -> usize {
    text.find(|c| !test(c)).unwrap_or(text.len())
}
