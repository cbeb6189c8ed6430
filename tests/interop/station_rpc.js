// A charging station made of the npm package ocpp-rpc in strict mode, as OCPP 1.6 or 2.0.1: every
// frame that it gets is checked against its own copy of the schemas.
//
// Run it with node, NODE_PATH=.peers/rpc/node_modules (see install_rpc.sh). Options, commands on
// stdin and lines on stdout are those of station_ocpp.py:
//
//   node station_rpc.js --url ws://127.0.0.1:8887 --id CP-1 --version 1.6 [--serial SN-CP-1]
//                       [--cert FILE --key FILE --ca FILE] [--password TEXT]
//                       [--overstate AMPERES] [--foreign AMPERES] [--rotation STR] [--ahead SECONDS]
//
// One more line: {"event": "invalid", ...} when a frame of ours breaks a schema.
'use strict';

const fs = require('fs');
const readline = require('readline');
const { RPCClient } = require('ocpp-rpc');

const given = {};
for (let i = 2; i < process.argv.length; i += 2) {
    given[process.argv[i].replace(/^--/, '')] = process.argv[i + 1];
}
const version = given.version || '1.6';
const old = version === '1.6';
const serial = given.serial || `SN-${given.id}`;

const say = (event, more = {}) => process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
const shown = () => Date.now() + 1000 * Number(given.ahead || 0);
const now = () => new Date(shown()).toISOString();

const wsOpts = {};
for (const name of ['cert', 'key', 'ca']) {
    if (given[name]) wsOpts[name] = fs.readFileSync(given[name]);
}

const station = new RPCClient({
    endpoint: `${given.url.replace(/\/$/, '')}/ocpp`,
    identity: given.id,
    protocols: [`ocpp${version}`],
    strictMode: true,
    password: given.password,
    reconnect: false,
    wsOpts,
});

station.on('strictValidationFailure', ({ error, method, isCall }) =>
    say('invalid', { method, isCall, error: String(error) }));
station.on('badMessage', ({ error }) => say('invalid', { error: String(error) }));
station.on('close', () => { say('closed'); process.exit(0); });

// What it holds: { outlet, id, body, schedule }, newest last, and whether a transaction runs or starts.
const MAX_A = 32;
const VOLTS = 230;
const PHASES = 3;
const MAXIMA = ['ChargePointMaxProfile', 'ChargingStationMaxProfile', 'ChargingStationExternalConstraints'];
const overstate = Number(given.overstate || 0);
let held = [];
let charging = false;

const asHeld = (outlet, body) => ({
    outlet,
    id: old ? body.chargingProfileId : body.id,
    body,
    schedule: old ? body.chargingSchedule : body.chargingSchedule[0],
});
const samePlace = (a, b) => a.outlet === b.outlet
    && a.body.chargingProfilePurpose === b.body.chargingProfilePurpose && a.body.stackLevel === b.body.stackLevel;

if (given.foreign) {
    const schedule = {
        startSchedule: '2020-01-01T00:00:00Z',
        chargingRateUnit: 'A',
        chargingSchedulePeriod: [{ startPeriod: 0, limit: Number(given.foreign) }],
    };
    const body = { stackLevel: 3, chargingProfilePurpose: 'TxDefaultProfile', chargingProfileKind: 'Absolute' };
    held.push(asHeld(1, old
        ? { ...body, chargingProfileId: 5, chargingSchedule: schedule }
        : { ...body, id: 5, chargingSchedule: [{ id: 1, ...schedule }] }));
}

function install(profile) {
    if (profile.body.chargingProfileKind !== 'Absolute') return 'UnsupportedKind';
    if (profile.body.chargingProfilePurpose === 'TxProfile' && !(charging && profile.outlet)) return 'TxNotFound';
    const beside = held.filter((other) => samePlace(other, profile) && other.id !== profile.id);
    if (beside.length && !old) return 'DuplicateProfile';
    held = held.filter((other) => other.id !== profile.id && !beside.includes(other));
    held.push(profile);
    return '';
}

// Amperes per phase at a time in ms, null where the profile says nothing.
function valueOf({ body, schedule }, at) {
    if (body.validFrom && at < Date.parse(body.validFrom)) return null;
    if (body.validTo && at >= Date.parse(body.validTo)) return null;
    const passed = (at - Date.parse(schedule.startSchedule)) / 1000;
    if (passed < 0 || (schedule.duration !== undefined && passed >= schedule.duration)) return null;
    const period = schedule.chargingSchedulePeriod.filter((p) => p.startPeriod <= passed).pop();
    return schedule.chargingRateUnit === 'W'
        ? period.limit / (VOLTS * (period.numberPhases ?? PHASES))
        : period.limit;
}

function edgesOf({ body, schedule }) {
    const offsets = schedule.chargingSchedulePeriod.map((p) => p.startPeriod);
    if (schedule.duration !== undefined) offsets.push(schedule.duration);
    const valid = [body.validFrom, body.validTo].filter(Boolean).map((text) => Date.parse(text));
    return [...offsets.map((s) => Date.parse(schedule.startSchedule) + 1000 * s), ...valid];
}

function highest(purpose, outlets, at) {
    const found = held
        .filter((p) => p.body.chargingProfilePurpose === purpose && outlets.includes(p.outlet))
        .filter((p) => valueOf(p, at) !== null)
        .sort((a, b) => b.body.stackLevel - a.body.stackLevel);
    return found.length ? valueOf(found[0], at) : null;
}

function allowed(outlet, at) {
    const own = (charging ? highest('TxProfile', [outlet], at) : null)
        ?? highest('TxDefaultProfile', [outlet], at) ?? highest('TxDefaultProfile', [0], at);
    const maxima = MAXIMA.map((purpose) => highest(purpose, [0, outlet], at));
    return Math.min(...[MAX_A, own, ...maxima].filter((limit) => limit !== null));
}

function composite(outlet, start, seconds, unit) {
    const end = start + 1000 * seconds;
    const edges = new Set([start, ...held.flatMap(edgesOf).filter((edge) => start < edge && edge < end)]);
    const factor = unit === 'W' ? VOLTS * PHASES : 1;
    return [...edges].sort((a, b) => a - b).map((edge) => [
        Math.floor((edge - start) / 1000),
        Math.round((allowed(outlet, edge) + overstate) * factor * 10) / 10,
    ]);
}

station.handle('SetChargingProfile', ({ params }) => {
    const body = old ? params.csChargingProfiles : params.chargingProfile;
    const profile = asHeld(old ? params.connectorId : params.evseId, body);
    const reason = install(profile);
    if (reason) {
        say('refused', { id: profile.id, reason });
        return old ? { status: 'Rejected' } : { status: 'Rejected', statusInfo: { reasonCode: reason } };
    }
    say('profile', {
        outlet: profile.outlet,
        id: profile.id,
        purpose: body.chargingProfilePurpose,
        stack_level: body.stackLevel,
        transaction: body.transactionId ?? null,
        unit: profile.schedule.chargingRateUnit,
        limits: profile.schedule.chargingSchedulePeriod.map((p) => [p.startPeriod, p.limit]),
        start: profile.schedule.startSchedule,
    });
    return { status: 'Accepted' };
});
station.handle('ClearChargingProfile', ({ params }) => {
    const id = old ? params.id : params.chargingProfileId;
    const where = old ? params : params.chargingProfileCriteria || {};
    const number = old ? where.connectorId : where.evseId;
    const goes = (p) => (id !== undefined ? p.id === id
        : [undefined, p.outlet].includes(number)
            && [undefined, p.body.chargingProfilePurpose].includes(where.chargingProfilePurpose)
            && [undefined, p.body.stackLevel].includes(where.stackLevel));
    const before = held.length;
    held = held.filter((p) => !goes(p));
    const status = held.length < before ? 'Accepted' : 'Unknown';
    say('cleared', { status, id, ...where });
    return { status };
});
station.handle('GetCompositeSchedule', ({ params }) => {
    const outlet = old ? params.connectorId : params.evseId;
    const unit = params.chargingRateUnit || 'A';
    const start = shown();
    const limits = composite(outlet, start, params.duration, unit);
    say('composite', { outlet, unit, limits });
    const schedule = {
        duration: params.duration,
        chargingRateUnit: unit,
        chargingSchedulePeriod: limits.map(([startPeriod, limit]) => ({ startPeriod, limit, numberPhases: PHASES })),
    };
    const scheduleStart = new Date(start).toISOString();
    return old
        ? { status: 'Accepted', connectorId: outlet, scheduleStart, chargingSchedule: schedule }
        : { status: 'Accepted', schedule: { evseId: outlet, scheduleStart, ...schedule } };
});
station.handle('GetChargingProfiles', ({ params }) => {
    const { chargingProfilePurpose: purpose, stackLevel } = params.chargingProfile;
    const found = held.filter((p) => [undefined, p.outlet].includes(params.evseId)
        && [undefined, p.body.chargingProfilePurpose].includes(purpose)
        && [undefined, p.body.stackLevel].includes(stackLevel));
    // After the answer.
    setImmediate(async () => {
        for (const [index, profile] of found.entries()) {
            await station.call('ReportChargingProfiles', {
                requestId: params.requestId,
                chargingLimitSource: 'CSO',
                evseId: profile.outlet,
                chargingProfile: [profile.body],
                tbc: index + 1 < found.length,
            });
        }
        say('reported', { ids: found.map((p) => p.id) });
    });
    return { status: found.length ? 'Accepted' : 'NoProfiles' };
});
station.handle('GetConfiguration', ({ params }) => {
    const known = {
        ChargeProfileMaxStackLevel: '5',
        ChargingScheduleAllowedChargingRateUnit: 'Current,Power',
        ChargingScheduleMaxPeriods: '10',
        ...(given.rotation ? { ConnectorPhaseRotation: `0.RST,1.${given.rotation}` } : {}),
    };
    const keys = params.key || Object.keys(known);
    return {
        configurationKey: keys.filter((k) => k in known).map((key) => ({ key, readonly: true, value: known[key] })),
        unknownKey: keys.filter((k) => !(k in known)),
    };
});
station.handle('ChangeConfiguration', ({ params }) => {
    say('configured', params);
    return { status: 'Accepted' };
});
station.handle('GetVariables', ({ params }) => {
    const known = { ProfileStackLevel: '5', RateUnit: 'A,W', PeriodsPerSchedule: '10' };
    const valueFor = (component, variable) => (variable.name === 'PhaseRotation' && component.name === 'EVSE'
        ? given.rotation : known[variable.name]);
    return {
        getVariableResult: params.getVariableData.map(({ component, variable }) => {
            const attributeValue = valueFor(component, variable);
            return attributeValue === undefined
                ? { attributeStatus: 'UnknownVariable', component, variable }
                : { attributeStatus: 'Accepted', attributeValue, component, variable };
        }),
    };
});
station.handle('SetVariables', ({ params }) => ({
    setVariableResult: params.setVariableData.map(({ component, variable, attributeValue }) => {
        say('configured', { key: variable.name, value: attributeValue });
        return { attributeStatus: 'Accepted', component, variable };
    }),
}));

let transaction = null;
let seqNo = 0;

const status = (word) => (old
    ? station.call('StatusNotification', { connectorId: 1, errorCode: 'NoError', status: word, timestamp: now() })
    : station.call('StatusNotification', { evseId: 1, connectorId: 1, connectorStatus: word, timestamp: now() }));

async function boot() {
    const answer = await station.call('BootNotification', old
        ? { chargePointVendor: 'ocpp-rpc', chargePointModel: 'RPCClient', chargePointSerialNumber: serial }
        : { reason: 'PowerUp', chargingStation: { vendorName: 'ocpp-rpc', model: 'RPCClient', serialNumber: serial } });
    say('booted', { status: answer.status, interval: answer.interval });
    await status('Available');
}

function event(eventType, triggerReason, info, more = {}) {
    const message = { eventType, triggerReason, timestamp: now(), seqNo, ...more };
    seqNo += 1;
    return station.call('TransactionEvent', { ...message, transactionInfo: { transactionId: transaction, ...info } });
}

const todo = {
    status: ({ status: word }) => status(word),
    start: async ({ token = 'CARD-1' }) => {
        // What follows the answer may be read before this goes on.
        charging = true;
        if (old) {
            const start = { connectorId: 1, idTag: token, meterStart: 0, timestamp: now() };
            transaction = (await station.call('StartTransaction', start)).transactionId;
            await status('Charging');
        } else {
            transaction = `rpc-${Date.now()}`;
            await status('Occupied');
            await event('Started', 'Authorized', { chargingState: 'Charging' }, {
                evse: { id: 1, connectorId: 1 },
                idToken: { idToken: token, type: 'ISO14443' },
            });
        }
        say('started', { transaction: String(transaction) });
    },
    meter: async ({ power_w: power }) => {
        if (old) {
            const value = { value: String(power), measurand: 'Power.Active.Import', unit: 'W' };
            await station.call('MeterValues', {
                connectorId: 1,
                transactionId: transaction,
                meterValue: [{ timestamp: now(), sampledValue: [value] }],
            });
        } else {
            const value = { value: power, measurand: 'Power.Active.Import', unitOfMeasure: { unit: 'W' } };
            await event('Updated', 'MeterValuePeriodic', { chargingState: 'Charging' }, {
                meterValue: [{ timestamp: now(), sampledValue: [value] }],
            });
        }
        say('metered');
    },
    stop: async () => {
        if (old) {
            await station.call('StopTransaction', { transactionId: transaction, meterStop: 1000, timestamp: now() });
        } else {
            await event('Ended', 'EVDeparted', { stoppedReason: 'EVDisconnected' });
        }
        charging = false;
        held = held.filter((p) => p.body.chargingProfilePurpose !== 'TxProfile');
        await status('Available');
        say('stopped');
    },
    quit: () => station.close(),
};

async function main() {
    await station.connect();
    await boot();
    const lines = readline.createInterface({ input: process.stdin });
    for await (const line of lines) {
        const command = JSON.parse(line);
        try {
            await todo[command.do](command);
        } catch (problem) {
            say('failed', { what: command.do, error: String(problem) });
        }
    }
    await station.close();
}

main().catch((problem) => {
    say('failed', { what: 'connection', error: String(problem) });
    process.exit(1);
});
