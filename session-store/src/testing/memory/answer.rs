//! What a command or a script answers.

use super::keyspace::Refusal;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Integer(i64),
    Status(&'static str),
    String(Vec<u8>),
    List(Vec<Answer>),
    Refused(Refusal),
}

impl Answer {
    /// What scripts answer: a list, most of them of numbers.
    pub(super) fn of_script<const N: usize>(answers: [Self; N]) -> Self {
        Self::List(answers.into())
    }

    pub(super) fn numbers<const N: usize>(numbers: [i64; N]) -> Self {
        Self::List(numbers.into_iter().map(Self::Integer).collect())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut line = |text: String| out.extend_from_slice(format!("{text}\r\n").as_bytes());
        match self {
            Self::Nothing => line("$-1".to_owned()),
            Self::Integer(integer) => line(format!(":{integer}")),
            Self::Status(status) => line(format!("+{status}")),
            Self::Refused(Refusal(why)) => line(format!("-{why}")),
            Self::String(string) => {
                line(format!("${}", string.len()));
                out.extend_from_slice(string);
                out.extend_from_slice(b"\r\n");
            }
            Self::List(answers) => {
                line(format!("*{}", answers.len()));
                answers.iter().for_each(|answer| answer.encode(out));
            }
        }
    }
}

impl From<Option<Vec<u8>>> for Answer {
    fn from(string: Option<Vec<u8>>) -> Self {
        string.map_or(Self::Nothing, Self::String)
    }
}

impl From<bool> for Answer {
    fn from(done: bool) -> Self {
        Self::Integer(i64::from(done))
    }
}
