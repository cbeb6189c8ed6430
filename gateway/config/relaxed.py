"""What a configuration allows beyond the strict defaults, in sentences for ``gridgate doctor``."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.settings import SiteConfig
from gateway.domain.envelope import BindingPolicy, FallbackRule, LossPolicy
from gateway.ports.adapter import ListenerSettings, Trust
from gateway.ports.fleet import StationSettings
from gateway.ports.grid import GroupBinding, PeerSettings


def relaxations(config: SiteConfig) -> tuple[str, ...]:
    """One sentence each, in the order of listeners, peers, bindings, stations; empty where none is."""
    return tuple(_sentences(config))


def _sentences(config: SiteConfig) -> Iterator[str]:
    for listener in config.listeners.values():
        yield from _of_listener(listener)
    for peer in config.peers:
        yield from _of_peer(peer, config.listeners[peer.listener])
    for binding in config.groups:
        yield from _of_binding(binding)
    for station in config.stations:
        yield from _of_station(station)


def _of_listener(listener: ListenerSettings) -> Iterator[str]:
    match listener.trust:
        case Trust.INSECURE:
            yield f"Listener {listener.name} is insecure: plain TCP on {listener.host}, nobody proves who they are."
        case Trust.SERVER_TLS:
            yield f"Listener {listener.name} has trust server_tls: its clients show no certificate."
        case Trust.MTLS:
            pass


def _of_peer(peer: PeerSettings, listener: ListenerSettings) -> Iterator[str]:
    if listener.trust is not Trust.MTLS:
        yield f"Peer {peer.id} is known by its token alone: listener {listener.name} asks for no certificate."
    if peer.allow_private:
        yield f"Peer {peer.id} may have us call private and loopback addresses (allow_private)."
    if peer.dialect != "standard":
        yield f"Peer {peer.id} is heard in the dialect {peer.dialect}, which departs from its standard."


def _of_binding(binding: GroupBinding) -> Iterator[str]:
    where, policy, strict = f"Binding {binding.peer}/{binding.group}", binding.policy, BindingPolicy()
    if policy.on_loss is LossPolicy.EXHAUST_SCHEDULE:
        yield f"{where} goes on with the schedule that it holds when its source is lost (on_loss)."
    if not policy.demands_envelope:
        yield f"{where} demands no envelope: where none holds, only the static limits do (demands_envelope)."
    if policy.resume_previous:
        yield f"{where} takes the limits from before an outage up again (resume_previous)."
    if FallbackRule.STATIC_ONLY in policy.fallback:
        yield f"{where} may fall back to nothing but the static limits (fallback)."
    for key in ("loss_grace_s", "gap_grace_s"):
        given, default = getattr(policy, key), getattr(strict, key)
        if given > default:
            yield f"{where} waits {given} s before it falls back ({key}, {default} by default)."
    if policy.recover_s < strict.recover_s:
        default = strict.recover_s
        yield f"{where} trusts its source {policy.recover_s} s after its return (recover_s, {default} by default)."


def _of_station(station: StationSettings) -> Iterator[str]:
    match station.profile:
        case 0:
            yield f"Station {station.id} proves nothing (OCPP security profile 0)."
        case 1:
            yield f"Station {station.id} proves itself with a password over plain TCP (OCPP security profile 1)."
        case 2:
            yield f"Station {station.id} proves itself with a password, not a certificate (OCPP security profile 2)."
