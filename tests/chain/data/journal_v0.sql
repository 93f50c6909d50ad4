BEGIN TRANSACTION;
CREATE TABLE commits (
    digest TEXT PRIMARY KEY, kind TEXT NOT NULL, intent_id TEXT NOT NULL, signer TEXT NOT NULL, netuid INTEGER NOT NULL,
    mecid INTEGER NOT NULL, body TEXT NOT NULL, due INTEGER, epoch INTEGER, state TEXT NOT NULL, at REAL NOT NULL);
INSERT INTO "commits" VALUES('0xd1','hash','w-committed','v',4,0,'{"uids": [0], "values": [65535], "version_key": 0, "salt": [1, 1, 1, 1, 1, 1, 1, 1], "reveal_round": null}',40,NULL,'pending',1.79607770666117763517e+09);
CREATE TABLE extrinsics (
    hash TEXT PRIMARY KEY, signer TEXT NOT NULL, nonce INTEGER NOT NULL, birth INTEGER NOT NULL, death INTEGER,
    data BLOB NOT NULL, call TEXT NOT NULL, state TEXT NOT NULL, block INTEGER, detail TEXT, at REAL NOT NULL);
INSERT INTO "extrinsics" VALUES('0x0d','c',0,10,73,X'8400','{"call": "Balances.transfer_keep_alive", "args": {}}','included',12,NULL,1.79587770654540252682e+09);
INSERT INTO "extrinsics" VALUES('0x0e','c',1,10,73,X'8400','{"call": "Balances.transfer_keep_alive", "args": {}}','included',13,NULL,1.79607770654748678208e+09);
INSERT INTO "extrinsics" VALUES('0x0f','c',2,10,73,X'8400','{"call": "Balances.transfer_keep_alive", "args": {}}','refused',NULL,'Payment: words',1.79607770655711436276e+09);
INSERT INTO "extrinsics" VALUES('0x10','c',2,10,73,X'8400','{"call": "Balances.transfer_keep_alive", "args": {}}','expired',NULL,NULL,1.7960777065681183338e+09);
INSERT INTO "extrinsics" VALUES('0x11','c',3,10,73,X'8400','{"call": "Balances.transfer_keep_alive", "args": {}}','pooled',NULL,NULL,1.79607770658845329291e+09);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "facts" VALUES('genesis','0x01');
CREATE TABLE intents (
    intent_id TEXT PRIMARY KEY, call TEXT NOT NULL, signer TEXT NOT NULL, netuid INTEGER, body TEXT NOT NULL,
    fate TEXT, receipt TEXT, at REAL NOT NULL);
INSERT INTO "intents" VALUES('done','Balances.transfer_keep_alive','c',NULL,'{"kind": "Transfer", "signer": "c", "intent_id": "done", "dest": "d", "value": 5}','included','{"intent_id": "done", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "included", "netuid": null, "block": 12, "extrinsic_hash": null, "error": null, "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('paid-today','Balances.transfer_keep_alive','c',NULL,'{"kind": "Transfer", "signer": "c", "intent_id": "paid-today", "dest": "d", "value": 5}','included','{"intent_id": "paid-today", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "included", "netuid": null, "block": 13, "extrinsic_hash": null, "error": null, "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('payment','Balances.transfer_keep_alive','c',NULL,'{"kind": "Transfer", "signer": "c", "intent_id": "payment", "dest": "d", "value": 5}','failed','{"intent_id": "payment", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "failed", "netuid": null, "block": null, "extrinsic_hash": null, "error": "Payment", "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('stale','Balances.transfer_keep_alive','c',NULL,'{"kind": "Transfer", "signer": "c", "intent_id": "stale", "dest": "d", "value": 5}','failed','{"intent_id": "stale", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "failed", "netuid": null, "block": null, "extrinsic_hash": null, "error": "Stale", "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('open','Balances.transfer_keep_alive','c',NULL,'{"kind": "Transfer", "signer": "c", "intent_id": "open", "dest": "d", "value": 5}','unknown','{"intent_id": "open", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "unknown", "netuid": null, "block": null, "extrinsic_hash": null, "error": "Timeout", "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('never-signed','Balances.transfer_keep_alive','c',NULL,'{"kind": "Transfer", "signer": "c", "intent_id": "never-signed", "dest": "d", "value": 5}',NULL,NULL,1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('denied','Balances.transfer_keep_alive','c',NULL,'{"kind": "Transfer", "signer": "c", "intent_id": "denied", "dest": "d", "value": 5}','not_sent','{"intent_id": "denied", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "not_sent", "netuid": null, "block": null, "extrinsic_hash": null, "error": "PolicyDenied", "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('w-held','SubtensorModule.set_weights','v',3,'{"kind": "SetWeights", "signer": "v", "intent_id": "w-held", "netuid": 3, "values": [["h", 0.5]], "mecid": 0, "version_key": 0}','held','{"intent_id": "w-held", "call": "SubtensorModule.set_weights", "signer": "v", "fate": "held", "netuid": 3, "block": null, "extrinsic_hash": null, "error": "SettingWeightsTooFast", "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
INSERT INTO "intents" VALUES('w-committed','SubtensorModule.set_weights','v',4,'{"kind": "SetWeights", "signer": "v", "intent_id": "w-committed", "netuid": 4, "values": [["h", 0.5]], "mecid": 0, "version_key": 0}','committed','{"intent_id": "w-committed", "call": "SubtensorModule.commit_weights", "signer": "v", "fate": "committed", "netuid": 4, "block": 20, "extrinsic_hash": null, "error": null, "action": null, "fee_rao": 0, "until": null}',1.79607770654299807549e+09);
CREATE TABLE items (
    hash TEXT NOT NULL, place INTEGER NOT NULL, intent_id TEXT NOT NULL, PRIMARY KEY (hash, place));
INSERT INTO "items" VALUES('0x0d',0,'done');
INSERT INTO "items" VALUES('0x0e',0,'paid-today');
INSERT INTO "items" VALUES('0x0f',0,'payment');
INSERT INTO "items" VALUES('0x10',0,'stale');
INSERT INTO "items" VALUES('0x11',0,'open');
CREATE TABLE receipts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, intent_id TEXT NOT NULL, receipt TEXT NOT NULL, at REAL NOT NULL);
INSERT INTO "receipts" VALUES(1,'done','{"intent_id": "done", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "included", "netuid": null, "block": 12, "extrinsic_hash": null, "error": null, "action": null, "fee_rao": 0, "until": null}',1.79607770654615402222e+09);
INSERT INTO "receipts" VALUES(2,'paid-today','{"intent_id": "paid-today", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "included", "netuid": null, "block": 13, "extrinsic_hash": null, "error": null, "action": null, "fee_rao": 0, "until": null}',1.79607770655255579946e+09);
INSERT INTO "receipts" VALUES(3,'payment','{"intent_id": "payment", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "failed", "netuid": null, "block": null, "extrinsic_hash": null, "error": "Payment", "action": null, "fee_rao": 0, "until": null}',1.79607770656269216539e+09);
INSERT INTO "receipts" VALUES(4,'stale','{"intent_id": "stale", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "failed", "netuid": null, "block": null, "extrinsic_hash": null, "error": "Stale", "action": null, "fee_rao": 0, "until": null}',1.79607770658115792274e+09);
INSERT INTO "receipts" VALUES(5,'open','{"intent_id": "open", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "unknown", "netuid": null, "block": null, "extrinsic_hash": null, "error": "Timeout", "action": null, "fee_rao": 0, "until": null}',1.7960777066091008187e+09);
INSERT INTO "receipts" VALUES(6,'denied','{"intent_id": "denied", "call": "Balances.transfer_keep_alive", "signer": "c", "fate": "not_sent", "netuid": null, "block": null, "extrinsic_hash": null, "error": "PolicyDenied", "action": null, "fee_rao": 0, "until": null}',1.79607770662115240095e+09);
INSERT INTO "receipts" VALUES(7,'w-held','{"intent_id": "w-held", "call": "SubtensorModule.set_weights", "signer": "v", "fate": "held", "netuid": 3, "block": null, "extrinsic_hash": null, "error": "SettingWeightsTooFast", "action": null, "fee_rao": 0, "until": null}',1.79607770664115715024e+09);
INSERT INTO "receipts" VALUES(8,'w-committed','{"intent_id": "w-committed", "call": "SubtensorModule.commit_weights", "signer": "v", "fate": "committed", "netuid": 4, "block": 20, "extrinsic_hash": null, "error": null, "action": null, "fee_rao": 0, "until": null}',1.79607770665316224091e+09);
CREATE TABLE standing (
    signer TEXT NOT NULL, netuid INTEGER NOT NULL, mecid INTEGER NOT NULL, intent_id TEXT NOT NULL,
    PRIMARY KEY (signer, netuid, mecid));
INSERT INTO "standing" VALUES('v',3,0,'w-held');
INSERT INTO "standing" VALUES('v',4,0,'w-committed');
CREATE INDEX items_by_intent ON items (intent_id);
CREATE INDEX open_intents ON intents (fate) WHERE fate IS NULL OR fate = 'unknown';
CREATE INDEX intents_by_place ON intents (signer, netuid);
CREATE INDEX open_extrinsics ON extrinsics (state) WHERE state IN ('written', 'pooled');
CREATE INDEX pending_commits ON commits (state) WHERE state = 'pending';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('receipts',8);
COMMIT;
