//! The few commands that this library sends beside its scripts.

use super::{
    answer::Answer,
    keyspace::{Keyspace, Refusal},
    scripts,
};

/// Does what one command says, which is all or nothing to everybody else.
pub(super) fn run(keyspace: &mut Keyspace, command: &[&[u8]]) -> Answer {
    answer(keyspace, command).unwrap_or_else(Answer::Refused)
}

fn answer(keyspace: &mut Keyspace, command: &[&[u8]]) -> Result<Answer, Refusal> {
    Ok(match command {
        [b"PING"] => Answer::Status("PONG"),
        [b"EVALSHA", hash, count, rest @ ..] => scripts::run(keyspace, hash, count, rest)?,
        [b"HGETALL", key] => {
            let pairs = keyspace.hash(key)?.into_iter().flatten();
            Answer::List(pairs.flat_map(|(field, value)| [field, value]).cloned().map(Answer::String).collect())
        }
        [b"HMGET", key, fields @ ..] => {
            let values = fields.iter().map(|field| keyspace.field(key, field).map(Answer::from));
            Answer::List(values.collect::<Result<_, _>>()?)
        }
        [b"HGET", key, field] => keyspace.field(key, field)?.into(),
        [b"GET", key] => keyspace.string(key)?.into(),
        [b"SMEMBERS", key] => Answer::List(keyspace.set(key)?.into_iter().flatten().cloned().map(Answer::String).collect()),
        [b"EXISTS", key] => keyspace.exists(key).into(),
        [b"PTTL", key] => Answer::Integer(keyspace.left_ms(key)),
        [b"DEL", keys @ ..] => Answer::Integer(keys.iter().filter(|key| keyspace.remove(key)).count() as i64),
        [b"ZRANGE", key, b"0", b"-1"] => {
            let mut members =
                keyspace.sorted_set(key, |set| set.iter().map(|(member, at)| (*at, member.clone())).collect::<Vec<_>>())?;
            members.sort();
            Answer::List(members.into_iter().map(|(_, member)| Answer::String(member)).collect())
        }
        [b"ZREM", key, members @ ..] => {
            let removed =
                keyspace.sorted_set(key, |set| members.iter().filter(|member| set.remove(**member).is_some()).count())?;
            Answer::Integer(removed as i64)
        }
        _ => return Err(Refusal("ERR unknown command: a node in memory knows those of this library alone")),
    })
}
