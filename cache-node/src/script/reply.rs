//! Between replies and Lua values, by Redis's rules of conversion
//! (<https://redis.io/docs/latest/develop/interact/programmability/lua-api/#data-type-conversion>).

use mlua::{Lua, Table, Value};

use crate::{
    protocol::{Protocol, Reply},
    script::host::Deadline,
};

/// Tables within tables that a script may return: more is an error and not a stack overflow.
const DEPTH_MAX: usize = 200;

/// Reads one reply from the front of `bytes`; they come from our own encoder, so a malformed one is a bug and becomes nil.
pub(super) fn to_lua(lua: &Lua, bytes: &mut &[u8]) -> mlua::Result<Value> {
    let Some((line, rest)) = split_line(bytes) else { return Ok(Value::Nil) };
    let Some((kind, text)) = line.split_first() else { return Ok(Value::Nil) };
    *bytes = rest;
    let number = || std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    match kind {
        b'+' => table_of(lua, "ok", text),
        b'-' => table_of(lua, "err", text),
        b':' => Ok(Value::Number(number() as f64)),
        b'$' | b'=' => match usize::try_from(number()) {
            Ok(length) if length + 2 <= bytes.len() => {
                let (content, rest) = bytes.split_at(length);
                *bytes = &rest[2..];
                // A verbatim string's "txt:" goes away.
                let content = if *kind == b'=' { content.get(4..).unwrap_or_default() } else { content };
                Ok(Value::String(lua.create_string(content)?))
            }
            _ => Ok(Value::Boolean(false)),
        },
        b'*' | b'~' | b'>' => match usize::try_from(number()) {
            Ok(length) => {
                let elements = lua.create_table_with_capacity(length, 0)?;
                for index in 1..=length {
                    elements.raw_set(index, to_lua(lua, bytes)?)?;
                }
                if *kind == b'~' { set_of(lua, &elements, length) } else { Ok(Value::Table(elements)) }
            }
            Err(_) => Ok(Value::Boolean(false)),
        },
        b'%' => {
            let map = lua.create_table()?;
            for _ in 0..number() {
                let key = to_lua(lua, bytes)?;
                map.raw_set(key, to_lua(lua, bytes)?)?;
            }
            let outer = lua.create_table()?;
            outer.raw_set("map", map)?;
            Ok(Value::Table(outer))
        }
        b',' => {
            let outer = lua.create_table()?;
            outer.raw_set(
                "double",
                std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN),
            )?;
            Ok(Value::Table(outer))
        }
        _ => Ok(Value::Nil),
    }
}

fn split_line<'a>(bytes: &&'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn table_of(lua: &Lua, field: &str, text: &[u8]) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    table.raw_set(field, lua.create_string(text)?)?;
    Ok(Value::Table(table))
}

fn set_of(lua: &Lua, elements: &Table, length: usize) -> mlua::Result<Value> {
    let set = lua.create_table()?;
    for index in 1..=length {
        set.raw_set(elements.raw_get::<Value>(index)?, true)?;
    }
    let outer = lua.create_table()?;
    outer.raw_set("set", set)?;
    Ok(Value::Table(outer))
}

/// Writes a script's result. `resp` is what the script chose with `redis.setresp`. A table that stands in itself many times over is
/// small in Lua and without end here: the walk keeps to the script's time, and ends with the first that does not fit into the reply.
pub(super) fn from_lua(value: &Value, resp: Protocol, deadline: &Deadline, reply: &mut Reply) -> mlua::Result<()> {
    Walk { resp, deadline }.write(value, reply, 0)
}

/// How a result is written.
#[derive(Clone, Copy)]
struct Walk<'a> {
    resp: Protocol,
    deadline: &'a Deadline,
}

impl Walk<'_> {
    fn write(self, value: &Value, reply: &mut Reply, depth: usize) -> mlua::Result<()> {
        let resp = self.resp;
        match value {
            Value::String(text) => reply.bulk(&text.as_bytes()),
            Value::Integer(number) => reply.integer(*number),
            // Numbers lose their fraction: Redis documents that scripts return strings where it matters.
            Value::Number(number) => reply.integer(*number as i64),
            // The script's protocol decides whether there are booleans, the client's how they are written.
            Value::Boolean(flag) if resp == Protocol::Resp3 => match reply.protocol() {
                Protocol::Resp2 => reply.flag(*flag),
                Protocol::Resp3 => reply.raw(if *flag { b"#t\r\n" } else { b"#f\r\n" }),
            },
            Value::Boolean(true) => reply.integer(1),
            Value::Table(table) if depth < DEPTH_MAX => self.write_table(table, reply, depth)?,
            Value::Table(_) => reply.error("ERR reached lua stack limit"),
            _ => reply.null(),
        }
        Ok(())
    }

    fn write_table(self, table: &Table, reply: &mut Reply, depth: usize) -> mlua::Result<()> {
        self.deadline.check()?;
        if let Value::String(text) = table.raw_get::<Value>("err")? {
            reply.error(&text.to_string_lossy());
            return Ok(());
        }
        if let Value::String(text) = table.raw_get::<Value>("ok")? {
            reply.simple(&text.to_string_lossy());
            return Ok(());
        }
        // A whole number comes as an integer.
        match table.raw_get::<Value>("double")? {
            Value::Number(number) => {
                reply.double(number);
                return Ok(());
            }
            Value::Integer(number) => {
                reply.double(number as f64);
                return Ok(());
            }
            _ => {}
        }
        if let Value::Table(map) = table.raw_get::<Value>("map")? {
            let pairs: Vec<(Value, Value)> = map.pairs().collect::<mlua::Result<_>>()?;
            reply.map(pairs.len());
            for (key, value) in pairs {
                self.write(&key, reply, depth + 1)?;
                self.write(&value, reply, depth + 1)?;
            }
            return Ok(());
        }
        if let Value::Table(set) = table.raw_get::<Value>("set")? {
            let members: Vec<(Value, Value)> = set.pairs().collect::<mlua::Result<_>>()?;
            reply.set(members.len());
            for (member, _) in members {
                self.write(&member, reply, depth + 1)?;
            }
            return Ok(());
        }
        let mark = reply.open();
        let mut length = 0;
        // Up to the first nil, as Redis does.
        loop {
            let element = table.raw_get::<Value>(length + 1)?;
            if element.is_nil() || reply.is_over() {
                break;
            }
            self.write(&element, reply, depth + 1)?;
            length += 1;
        }
        reply.close_array(mark, length);
        Ok(())
    }
}
