//! PUBLISH, SUBSCRIBE and their family.

use std::{collections::HashSet, sync::atomic::Ordering};

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        subcommand::{self, Subcommand, subcommands},
        table::rows,
    },
    node::{Client, Shared, Subscribed, Topic},
    protocol::{Args, Reply},
};

const SUBSCRIPTION: Flags = Flags::PUBSUB.and(Flags::NOSCRIPT).and(Flags::WHILE_SUBSCRIBED).and(Flags::LOADING).and(Flags::STALE);
const PUBLISH: Flags = Flags::PUBSUB.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST).and(Flags::MAY_REPLICATE);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "PUBLISH" 3 PUBLISH, "pubsub" NONE Client(publish) "2.0.0" "Posts a message to a channel.";
    "SUBSCRIBE" -2 SUBSCRIPTION, "pubsub" NONE Client(subscribe) "2.0.0" "Listens for messages published to channels.";
    "UNSUBSCRIBE" -1 SUBSCRIPTION, "pubsub" NONE Client(unsubscribe) "2.0.0" "Stops listening to messages posted to channels.";
    "PSUBSCRIBE" -2 SUBSCRIPTION, "pubsub" NONE Client(psubscribe) "2.0.0" "Listens for messages published to channels that match one or more patterns.";
    "PUNSUBSCRIBE" -1 SUBSCRIPTION, "pubsub" NONE Client(punsubscribe) "2.0.0" "Stops listening to messages published to channels that match one or more patterns.";
    "PUBSUB" -2 Flags::PUBSUB.and(Flags::LOADING).and(Flags::STALE), "pubsub" NONE Client(pubsub) "2.8.0" "A container for Pub/Sub commands.";
};

/// Channels and patterns that one connection may subscribe to: each keeps memory.
const SUBSCRIPTIONS_MAX: usize = 100_000;

fn publish(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let receivers = ctx.shared.pubsub.publish(args.at(1), args.at(2), ctx.config.pubsub_buffer_limit);
    ctx.shared.replication.hand_on_message(ctx.shared, args);
    reply.count(receivers);
    Ok(())
}

/// Channels or patterns: the same four commands twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Channels,
    Patterns,
}

impl Family {
    fn topic(self, name: &[u8]) -> Topic<'_> {
        match self {
            Family::Channels => Topic::Channel(name),
            Family::Patterns => Topic::Pattern(name),
        }
    }

    fn names(self, subscribed: &mut Subscribed) -> &mut HashSet<Vec<u8>> {
        match self {
            Family::Channels => &mut subscribed.channels,
            Family::Patterns => &mut subscribed.patterns,
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Family::Channels => ("subscribe", "unsubscribe"),
            Family::Patterns => ("psubscribe", "punsubscribe"),
        }
    }
}

fn subscribe(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    add(ctx, args, reply, Family::Channels)
}

fn psubscribe(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    add(ctx, args, reply, Family::Patterns)
}

fn unsubscribe(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    remove(ctx, args, reply, Family::Channels)
}

fn punsubscribe(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    remove(ctx, args, reply, Family::Patterns)
}

fn add(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply, family: Family) -> Outcome {
    if ctx.client.subscriptions() + args.len() - 1 > SUBSCRIPTIONS_MAX {
        return Err(CommandError::new(format!("ERR a connection may have {SUBSCRIPTIONS_MAX} subscriptions; open another one")));
    }
    for name in args.from(1).iter() {
        let subscribed = ctx.client.subscribed.get_or_insert_default();
        if family.names(subscribed).insert(name.to_vec()) {
            ctx.shared.pubsub.subscribe(family.topic(name), &ctx.client.entry);
            count(ctx.client);
        }
        confirm(reply, family.words().0, Some(name), ctx.client.subscriptions());
    }
    // Who took rights away meanwhile has not seen these subscriptions.
    let has_changed = ctx.client.follow_users(&ctx.shared.acl);
    if has_changed && args.from(1).iter().any(|name| !ctx.client.user().permits_channel(name, family == Family::Patterns)) {
        ctx.client.closes_after_reply = true;
    }
    Ok(())
}

fn remove(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply, family: Family) -> Outcome {
    let word = family.words().1;
    let names: Vec<Vec<u8>> = if args.len() > 1 {
        args.from(1).iter().map(<[u8]>::to_vec).collect()
    } else {
        ctx.client.subscribed.as_mut().map(|subscribed| family.names(subscribed).iter().cloned().collect()).unwrap_or_default()
    };
    if names.is_empty() {
        confirm(reply, word, None, ctx.client.subscriptions());
    }
    for name in &names {
        remove_one(ctx.shared, ctx.client, family, name);
        confirm(reply, word, Some(name), ctx.client.subscriptions());
    }
    Ok(())
}

fn remove_one(shared: &Shared, client: &mut Client, family: Family, name: &[u8]) {
    let was_there = client.subscribed.as_mut().is_some_and(|subscribed| family.names(subscribed).remove(name));
    if was_there {
        shared.pubsub.unsubscribe(family.topic(name), &client.entry);
        count(client);
    }
}

/// RESET, and the end of a connection.
pub(crate) fn unsubscribe_all(shared: &Shared, client: &mut Client) {
    let Some(subscribed) = client.subscribed.take() else { return };
    for name in &subscribed.channels {
        shared.pubsub.unsubscribe(Topic::Channel(name), &client.entry);
    }
    for name in &subscribed.patterns {
        shared.pubsub.unsubscribe(Topic::Pattern(name), &client.entry);
    }
    count(client);
}

fn count(client: &mut Client) {
    let (channels, patterns) =
        client.subscribed.as_ref().map_or((0, 0), |subscribed| (subscribed.channels.len(), subscribed.patterns.len()));
    client.entry.channels.store(channels as u32, Ordering::Relaxed);
    client.entry.patterns.store(patterns as u32, Ordering::Relaxed);
}

fn confirm(reply: &mut Reply, word: &str, name: Option<&[u8]>, subscriptions: usize) {
    reply.push(3);
    reply.bulk(word.as_bytes());
    reply.bulk_or_null(name);
    reply.count(subscriptions);
}

pub(super) const PUBSUB: &[Subcommand] = subcommands! {
    "CHANNELS" -2 "[<pattern>]" "2.8.0" "Return the channels that have subscribers and match a pattern.";
    "NUMPAT" 2 "" "2.8.0" "Return the number of patterns that have subscribers.";
    "NUMSUB" -2 "[<channel> ...]" "2.8.0" "Return the number of subscribers of each channel, patterns not counted.";
    "HELP" 2 "" "6.2.0" "Print this help.";
};

fn pubsub(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let registry = &ctx.shared.pubsub;
    match subcommand::find("PUBSUB", PUBSUB, args)? {
        "CHANNELS" if args.len() <= 3 => {
            let channels = registry.channels(args.get(2));
            reply.array(channels.len());
            channels.iter().for_each(|name| reply.bulk(name));
        }
        "CHANNELS" => return Err(CommandError::unknown_subcommand("PUBSUB", args.at(1))),
        "NUMSUB" => {
            // A flat array in both versions of the protocol.
            reply.array((args.len() - 2) * 2);
            for name in args.from(2).iter() {
                reply.bulk(name);
                reply.count(registry.subscribers(name));
            }
        }
        "NUMPAT" => reply.count(registry.patterns()),
        _ => subcommand::help("PUBSUB", PUBSUB, reply),
    }
    Ok(())
}
