//! The configuration file: a directive and its values per line, `#` for comments, quotes as in redis.conf.

use crate::{
    config::{Config, ConfigError},
    protocol::split_quoted_line,
};

/// Applies every line of `text` to `config`. `name` stands in errors.
pub(crate) fn parse_file(config: &mut Config, name: &str, text: &str) -> Result<(), ConfigError> {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at_line = |error: String| ConfigError(format!("{name}, line {}: {error}", index + 1));
        let words = split_quoted_line(line).ok_or_else(|| at_line("unbalanced quotes".to_owned()))?;
        let Some((directive, values)) = words.split_first() else { continue };
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        config.read(directive, &values).map_err(|error| at_line(error.0))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_file;
    use crate::Config;

    #[test]
    fn a_file_sets_directives_and_an_error_names_its_line() {
        let mut config = Config::default();
        parse_file(&mut config, "node.conf", "# a node\nport 7000\n\nrequirepass \"a b\"\nsave \"\"\n").expect("a valid file");
        assert_eq!((config.port, config.requirepass.as_deref()), (7000, Some("a b")));
        let error = parse_file(&mut config, "node.conf", "port 1\nporte 2\n").expect_err("an unknown directive");
        assert_eq!(error.to_string(), "node.conf, line 2: unknown directive 'porte'; see cache-node --help");
    }
}
