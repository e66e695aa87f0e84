//! What the controller knows, as others see it.

use crate::cluster::{
    controller::member::Member,
    settings::Settings,
    state::State,
    view::{NodeState, NodeView, Role, View},
};

pub(super) fn view(settings: &Settings, state: &State, members: &[Member]) -> View {
    let primary = members.iter().find(|member| member.name == state.primary);
    let primary_offset = primary.and_then(|member| member.report.as_ref()).map_or(0, |report| report.offset);
    View {
        name: settings.name().to_owned(),
        id: state.id.clone(),
        epoch: state.epoch,
        durability: settings.durability().name().to_owned(),
        primary: primary.filter(|member| serves_as_primary(member)).map(Member::address),
        nodes: members.iter().map(|member| node(member, state, primary_offset)).collect(),
    }
}

fn node(member: &Member, state: &State, primary_offset: u64) -> NodeView {
    let role = if member.name == state.primary { Role::Primary } else { Role::Replica };
    let offset = member.report.as_ref().map_or(0, |report| report.offset);
    NodeView {
        name: member.name.clone(),
        role,
        state: node_state(member, role, state),
        address: member.address(),
        metrics: member.metrics_address(),
        pid: member.process.as_ref().map(|process| process.id.pid),
        offset,
        lag_bytes: if role == Role::Replica { primary_offset.saturating_sub(offset) } else { 0 },
        restarts: member.restarts.saturating_sub(1),
    }
}

fn node_state(member: &Member, role: Role, state: &State) -> NodeState {
    let Some(report) = member.report.as_ref() else {
        return if member.process.is_some() { NodeState::Starting } else { NodeState::Down };
    };
    match role {
        _ if report.is_loading && !report.is_syncing => NodeState::Starting,
        _ if member.is_silent => NodeState::Silent,
        Role::Primary if serves_as_primary(member) => NodeState::Serving,
        Role::Primary => NodeState::Starting,
        // Not before it could succeed the primary.
        Role::Replica if report.is_link_up && state.is_followed_by(report) => NodeState::Serving,
        Role::Replica => NodeState::Syncing,
    }
}

fn serves_as_primary(member: &Member) -> bool {
    member.process.is_some() && member.report.as_ref().is_some_and(|report| report.is_primary && !report.is_loading)
}
