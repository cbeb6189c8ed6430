// A charging station made of the npm package ocpp-rpc in strict mode, as OCPP 1.6 or 2.0.1: every
// frame that it gets is checked against its own copy of the schemas.
//
// Run it with node, NODE_PATH=.peers/rpc/node_modules (see install_rpc.sh). Options, commands on
// stdin and lines on stdout are those of station_ocpp.py:
//
//   node station_rpc.js --url ws://127.0.0.1:8887 --id CP-1 --version 1.6 [--serial SN-CP-1]
//                       [--cert FILE --key FILE --ca FILE] [--password TEXT]
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
const now = () => new Date().toISOString();

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

station.handle('SetChargingProfile', ({ params }) => {
    const body = old ? params.csChargingProfiles : params.chargingProfile;
    const schedule = old ? body.chargingSchedule : body.chargingSchedule[0];
    say('profile', {
        outlet: old ? params.connectorId : params.evseId,
        id: old ? body.chargingProfileId : body.id,
        purpose: body.chargingProfilePurpose,
        stack_level: body.stackLevel,
        transaction: body.transactionId ?? null,
        unit: schedule.chargingRateUnit,
        limits: schedule.chargingSchedulePeriod.map((p) => [p.startPeriod, p.limit]),
        start: schedule.startSchedule,
    });
    return { status: 'Accepted' };
});
station.handle('ClearChargingProfile', ({ params }) => {
    say('cleared', params);
    return { status: 'Unknown' };
});
station.handle('GetConfiguration', ({ params }) => {
    const known = {
        ChargeProfileMaxStackLevel: '5',
        ChargingScheduleAllowedChargingRateUnit: 'Current,Power',
        ChargingScheduleMaxPeriods: '10',
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
    return {
        getVariableResult: params.getVariableData.map(({ component, variable }) => ({
            attributeStatus: variable.name in known ? 'Accepted' : 'UnknownVariable',
            ...(variable.name in known ? { attributeValue: known[variable.name] } : {}),
            component,
            variable,
        })),
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
