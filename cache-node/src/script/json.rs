//! cjson: `encode` and `decode` with lua-cjson's defaults.

use mlua::{Lua, Table, Value};
use serde_json::Value as Json;

use crate::script::host::Deadline;

/// Nesting that encode follows (lua-cjson: 1000); decode is bounded by serde_json's 128.
const DEPTH_MAX: usize = 1_000;

/// A table is an array although elements are missing, up to this many slots in all (lua-cjson: safe 10, ratio 2).
const SPARSE_SAFE: usize = 10;
const SPARSE_RATIO: usize = 2;

/// Longest text that encode makes and decode takes. Lua's own bound counts only what Lua holds.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A table that stands in itself many times over is small in Lua and without end as text: encoding keeps to the script's time and to
/// [`TEXT_BYTES_MAX`].
pub(super) fn encode(value: &Value, deadline: &Deadline) -> mlua::Result<Vec<u8>> {
    let mut out = Vec::new();
    write(value, &mut out, deadline, 0)?;
    Ok(out)
}

fn write(value: &Value, out: &mut Vec<u8>, deadline: &Deadline, depth: usize) -> mlua::Result<()> {
    if out.len() > TEXT_BYTES_MAX {
        return Err(mlua::Error::runtime(format!("Cannot serialise, the text exceeds {} MB", TEXT_BYTES_MAX / 1024 / 1024)));
    }
    if depth > DEPTH_MAX {
        return Err(mlua::Error::runtime(format!("Cannot serialise, excessive depth ({depth})")));
    }
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Boolean(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Number(number) => write_number(*number, out)?,
        Value::String(text) => write_string(&text.as_bytes(), out),
        Value::Table(table) => write_table(table, out, deadline, depth)?,
        other => return Err(mlua::Error::runtime(format!("Cannot serialise {}: type not supported", other.type_name()))),
    }
    Ok(())
}

/// lua-cjson prints "%.14g".
fn write_number(number: f64, out: &mut Vec<u8>) -> mlua::Result<()> {
    if !number.is_finite() {
        return Err(mlua::Error::runtime("Cannot serialise number: must not be NaN or Inf"));
    }
    let exponent = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    let text = if (-5..14).contains(&exponent) {
        let fixed = format!("{number:.*}", (13 - exponent).max(0) as usize);
        if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_owned() } else { fixed }
    } else {
        let scientific = format!("{number:.13e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        format!("{digits}e{sign}{exponent:0>2}")
    };
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            // Bytes that are no UTF-8 pass through, as in lua-cjson.
            other => out.push(*other),
        }
    }
    out.push(b'"');
}

fn write_table(table: &Table, out: &mut Vec<u8>, deadline: &Deadline, depth: usize) -> mlua::Result<()> {
    deadline.check()?;
    if let Some(length) = array_length(table)? {
        out.push(b'[');
        for index in 1..=length {
            if index > 1 {
                out.push(b',');
            }
            write(&table.raw_get::<Value>(index)?, out, deadline, depth + 1)?;
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    let mut is_first = true;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        match &key {
            Value::String(text) => write_string(&text.as_bytes(), out),
            Value::Integer(number) => out.extend_from_slice(format!("\"{number}\"").as_bytes()),
            Value::Number(number) => {
                out.push(b'"');
                write_number(*number, out)?;
                out.push(b'"');
            }
            _ => return Err(mlua::Error::runtime("Cannot serialise table: table key must be a number or string")),
        }
        out.push(b':');
        write(&value, out, deadline, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

/// The length when all keys are positive whole numbers and not too many are missing; an empty table is an object.
fn array_length(table: &Table) -> mlua::Result<Option<usize>> {
    let (mut max, mut count) = (0, 0);
    for pair in table.pairs::<Value, Value>() {
        let index = match pair?.0 {
            Value::Integer(number) => number as f64,
            Value::Number(number) => number,
            _ => return Ok(None),
        };
        if index < 1.0 || index.fract() != 0.0 {
            return Ok(None);
        }
        max = max.max(index as usize);
        count += 1;
    }
    if max > SPARSE_SAFE && max > count * SPARSE_RATIO {
        return Err(mlua::Error::runtime("Cannot serialise table: excessively sparse array"));
    }
    Ok((count > 0).then_some(max))
}

pub(super) fn decode(lua: &Lua, text: &[u8]) -> mlua::Result<Value> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(mlua::Error::runtime(format!("Cannot decode, the text exceeds {} MB", TEXT_BYTES_MAX / 1024 / 1024)));
    }
    let json: Json = serde_json::from_slice(text)
        .map_err(|error| mlua::Error::runtime(format!("Expected value but found invalid token: {error}")))?;
    to_lua(lua, &json)
}

fn to_lua(lua: &Lua, json: &Json) -> mlua::Result<Value> {
    Ok(match json {
        Json::Null => Value::NULL,
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(elements) => {
            let table = lua.create_table_with_capacity(elements.len(), 0)?;
            for (index, element) in elements.iter().enumerate() {
                table.raw_set(index + 1, to_lua(lua, element)?)?;
            }
            Value::Table(table)
        }
        Json::Object(fields) => {
            let table = lua.create_table_with_capacity(0, fields.len())?;
            for (name, value) in fields {
                table.raw_set(name.as_str(), to_lua(lua, value)?)?;
            }
            Value::Table(table)
        }
    })
}
