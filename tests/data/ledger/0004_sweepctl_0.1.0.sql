BEGIN TRANSACTION;
CREATE TABLE sweep_alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT sweep_alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO "sweep_alembic_version" VALUES('0004_sweepctl_0.1.0');
CREATE TABLE sweep_attempt (
	task TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	failure TEXT, 
	message TEXT NOT NULL, 
	started_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	seconds DOUBLE NOT NULL, 
	predicted_s DOUBLE, 
	peak_memory_bytes BIGINT NOT NULL, 
	flops DOUBLE NOT NULL, 
	exit_code INTEGER, 
	host TEXT NOT NULL, 
	device TEXT NOT NULL, 
	device_name TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	code TEXT NOT NULL, 
	log TEXT NOT NULL, 
	step BIGINT, 
	steps BIGINT, 
	loss DOUBLE, 
	progress_at DATETIME, 
	result_values JSON NOT NULL, 
	provenance JSON NOT NULL, 
	CONSTRAINT pk_sweep_attempt PRIMARY KEY (task, number), 
	CONSTRAINT ck_sweep_attempt_state CHECK (state IN ('running', 'done', 'failed', 'stopped', 'lost')), 
	CONSTRAINT fk_sweep_attempt_task FOREIGN KEY(task) REFERENCES sweep_task (fingerprint)
);
INSERT INTO "sweep_attempt" VALUES('s1:96cf3f4633c011220b5c881129ae8741',1,'done',NULL,'','2026-11-30 15:12:14.792891','2026-11-30 15:12:14.818618',2.0,NULL,0,3.0e+19,NULL,'node1','cpu','','','abc','',NULL,NULL,NULL,NULL,'{}','{"device":"cpu","code":"abc","torch":"2.14"}');
INSERT INTO "sweep_attempt" VALUES('s1:581db174fb1fae2149d87e1043a41132',1,'done',NULL,'','2026-11-30 15:12:14.878165','2026-11-30 15:12:14.879663',2.0,NULL,0,3.0e+19,NULL,'node1','cpu','','','abc','',NULL,NULL,NULL,NULL,'{}','{"device":"cpu","code":"abc","torch":"2.14"}');
INSERT INTO "sweep_attempt" VALUES('s1:bdc29c7993457c4e036d291012515db5',1,'done',NULL,'','2026-11-30 15:12:14.928793','2026-11-30 15:12:14.930753',2.0,NULL,0,3.0e+19,NULL,'node1','cpu','','','abc','',NULL,NULL,NULL,NULL,'{}','{"device":"cpu","code":"abc","torch":"2.14"}');
CREATE TABLE sweep_cell (
	study TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	is_current BOOLEAN NOT NULL, 
	p INTEGER NOT NULL, 
	q INTEGER NOT NULL, 
	c INTEGER NOT NULL, 
	encoder TEXT NOT NULL, 
	decoder TEXT NOT NULL, 
	resolution INTEGER NOT NULL, 
	frames INTEGER NOT NULL, 
	seed BIGINT NOT NULL, 
	tokens BIGINT NOT NULL, 
	e BIGINT NOT NULL, 
	compression DOUBLE NOT NULL, 
	parameters BIGINT NOT NULL, 
	macs BIGINT NOT NULL, 
	encoder_parameters BIGINT NOT NULL, 
	decoder_parameters BIGINT NOT NULL, 
	encoder_macs BIGINT NOT NULL, 
	decoder_macs BIGINT NOT NULL, 
	dit_parameters BIGINT, 
	dit_macs BIGINT, 
	dataset TEXT, 
	generation_dataset TEXT, 
	until BIGINT, 
	datasets JSON NOT NULL, 
	axes JSON NOT NULL, 
	config JSON NOT NULL, 
	CONSTRAINT pk_sweep_cell PRIMARY KEY (study, "key"), 
	CONSTRAINT fk_sweep_cell_study FOREIGN KEY(study) REFERENCES sweep_study (name)
);
INSERT INTO "sweep_cell" VALUES('small','s1:019822bbf053b510e82a8553a1df5927',1,1,8,1,4,'S','B',64,1,0,64,256,48.0,8000000,1000000000,3200000,4800000,400000000,600000000,NULL,NULL,'photos',NULL,NULL,'["photos"]','{"p":8,"lr":0.0001}','{"tokenizer":{"p":8,"c":4},"axes":{"p":8,"lr":0.0001}}');
INSERT INTO "sweep_cell" VALUES('small','s1:c65c49d53be8ab3c89177599078ffcce',2,1,16,1,4,'S','B',64,1,0,16,64,192.0,16000000,1000000000,6400000,9600000,400000000,600000000,NULL,NULL,'photos',NULL,NULL,'["photos"]','{"p":16,"lr":0.001}','{"tokenizer":{"p":16,"c":4},"axes":{"p":16,"lr":0.001}}');
CREATE TABLE sweep_cell_task (
	study TEXT NOT NULL, 
	cell TEXT NOT NULL, 
	stage TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	task TEXT NOT NULL, 
	CONSTRAINT pk_sweep_cell_task PRIMARY KEY (study, cell, stage), 
	CONSTRAINT fk_sweep_cell_task_study FOREIGN KEY(study, cell) REFERENCES sweep_cell (study, "key"), 
	CONSTRAINT fk_sweep_cell_task_task FOREIGN KEY(task) REFERENCES sweep_task (fingerprint)
);
INSERT INTO "sweep_cell_task" VALUES('small','s1:019822bbf053b510e82a8553a1df5927','prepare:train',0,'s1:96cf3f4633c011220b5c881129ae8741');
INSERT INTO "sweep_cell_task" VALUES('small','s1:019822bbf053b510e82a8553a1df5927','stage1',1,'s1:581db174fb1fae2149d87e1043a41132');
INSERT INTO "sweep_cell_task" VALUES('small','s1:019822bbf053b510e82a8553a1df5927','reconstruct:photos',2,'s1:bdc29c7993457c4e036d291012515db5');
INSERT INTO "sweep_cell_task" VALUES('small','s1:c65c49d53be8ab3c89177599078ffcce','prepare:train',0,'s1:96cf3f4633c011220b5c881129ae8741');
INSERT INTO "sweep_cell_task" VALUES('small','s1:c65c49d53be8ab3c89177599078ffcce','stage1',1,'s1:9ec9703e0272cafd72f28591b6f0661f');
INSERT INTO "sweep_cell_task" VALUES('small','s1:c65c49d53be8ab3c89177599078ffcce','reconstruct:photos',2,'s1:4ad6556209191cc6900fae8b0150a2d0');
CREATE TABLE sweep_dependency (
	task TEXT NOT NULL, 
	role TEXT NOT NULL, 
	parent TEXT NOT NULL, 
	CONSTRAINT pk_sweep_dependency PRIMARY KEY (task, role, parent), 
	CONSTRAINT fk_sweep_dependency_task FOREIGN KEY(task) REFERENCES sweep_task (fingerprint), 
	CONSTRAINT fk_sweep_dependency_parent FOREIGN KEY(parent) REFERENCES sweep_task (fingerprint)
);
INSERT INTO "sweep_dependency" VALUES('s1:581db174fb1fae2149d87e1043a41132','data','s1:96cf3f4633c011220b5c881129ae8741');
INSERT INTO "sweep_dependency" VALUES('s1:bdc29c7993457c4e036d291012515db5','images','s1:96cf3f4633c011220b5c881129ae8741');
INSERT INTO "sweep_dependency" VALUES('s1:bdc29c7993457c4e036d291012515db5','model','s1:581db174fb1fae2149d87e1043a41132');
INSERT INTO "sweep_dependency" VALUES('s1:9ec9703e0272cafd72f28591b6f0661f','data','s1:96cf3f4633c011220b5c881129ae8741');
INSERT INTO "sweep_dependency" VALUES('s1:4ad6556209191cc6900fae8b0150a2d0','images','s1:96cf3f4633c011220b5c881129ae8741');
INSERT INTO "sweep_dependency" VALUES('s1:4ad6556209191cc6900fae8b0150a2d0','model','s1:9ec9703e0272cafd72f28591b6f0661f');
CREATE TABLE sweep_file (
	task TEXT NOT NULL, 
	name TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	sha256 TEXT NOT NULL, 
	CONSTRAINT pk_sweep_file PRIMARY KEY (task, name), 
	CONSTRAINT fk_sweep_file_task FOREIGN KEY(task) REFERENCES sweep_task (fingerprint)
);
INSERT INTO "sweep_file" VALUES('s1:96cf3f4633c011220b5c881129ae8741','weights.safetensors',100,'0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO "sweep_file" VALUES('s1:581db174fb1fae2149d87e1043a41132','weights.safetensors',100,'0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO "sweep_file" VALUES('s1:bdc29c7993457c4e036d291012515db5','weights.safetensors',100,'0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE sweep_fit (
	study TEXT NOT NULL, 
	name TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	condition TEXT NOT NULL, 
	law TEXT, 
	n INTEGER, 
	slope DOUBLE, 
	slope_low DOUBLE, 
	slope_high DOUBLE, 
	r2 DOUBLE, 
	folder TEXT, 
	result JSON NOT NULL, 
	CONSTRAINT pk_sweep_fit PRIMARY KEY (study, name, number), 
	CONSTRAINT fk_sweep_fit_study FOREIGN KEY(study) REFERENCES sweep_study (name)
);
CREATE TABLE sweep_fitted (
	configuration TEXT NOT NULL, 
	device_name TEXT NOT NULL, 
	memory_bytes BIGINT NOT NULL, 
	ranks INTEGER NOT NULL, 
	micro_batch INTEGER, 
	recompute BOOLEAN NOT NULL, 
	peak_bytes BIGINT, 
	free_bytes BIGINT, 
	task TEXT NOT NULL, 
	seen_at DATETIME NOT NULL, 
	CONSTRAINT pk_sweep_fitted PRIMARY KEY (configuration, device_name, memory_bytes, ranks), 
	CONSTRAINT fk_sweep_fitted_task FOREIGN KEY(task) REFERENCES sweep_task (fingerprint)
);
CREATE TABLE sweep_metric (
	task TEXT NOT NULL, 
	name TEXT NOT NULL, 
	dataset TEXT NOT NULL, 
	protocol TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	value DOUBLE NOT NULL, 
	n BIGINT NOT NULL, 
	se DOUBLE, 
	CONSTRAINT pk_sweep_metric PRIMARY KEY (task, name, dataset, protocol, step), 
	CONSTRAINT fk_sweep_metric_task FOREIGN KEY(task) REFERENCES sweep_task (fingerprint)
);
INSERT INTO "sweep_metric" VALUES('s1:bdc29c7993457c4e036d291012515db5','psnr','photos','lite0',-1,20.0,32,NULL);
CREATE TABLE sweep_reference (
	id INTEGER NOT NULL, 
	edition TEXT NOT NULL, 
	source TEXT NOT NULL, 
	place TEXT NOT NULL, 
	figure TEXT, 
	kind TEXT, 
	dataset TEXT, 
	variant TEXT, 
	encoder TEXT, 
	decoder TEXT, 
	encoder_parameters BIGINT, 
	decoder_parameters BIGINT, 
	resolution INTEGER, 
	frames INTEGER, 
	q INTEGER, 
	p INTEGER, 
	c INTEGER, 
	tokens BIGINT, 
	e BIGINT, 
	setting TEXT, 
	generator TEXT, 
	cfg DOUBLE, 
	name TEXT NOT NULL, 
	value DOUBLE NOT NULL, 
	value_high DOUBLE, 
	n BIGINT, 
	protocol TEXT NOT NULL, 
	note TEXT, 
	CONSTRAINT pk_sweep_reference PRIMARY KEY (id)
);
CREATE TABLE sweep_search (
	study TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	is_current BOOLEAN NOT NULL, 
	axes JSON NOT NULL, 
	start JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_sweep_search PRIMARY KEY (study, "key"), 
	CONSTRAINT fk_sweep_search_study FOREIGN KEY(study) REFERENCES sweep_study (name)
);
CREATE TABLE sweep_study (
	name TEXT NOT NULL, 
	title TEXT NOT NULL, 
	question TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_sweep_study PRIMARY KEY (name)
);
INSERT INTO "sweep_study" VALUES('small','','','2026-11-30 15:12:14.603593');
CREATE TABLE sweep_submission (
	study TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	study_text TEXT NOT NULL, 
	resolved JSON NOT NULL, 
	overrides JSON NOT NULL, 
	argv JSON NOT NULL, 
	git_commit TEXT NOT NULL, 
	git_dirty BOOLEAN NOT NULL, 
	sweepctl_version TEXT NOT NULL, 
	asked_sha256 TEXT NOT NULL, 
	plan_sha256 TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_sweep_submission PRIMARY KEY (study, number), 
	CONSTRAINT fk_sweep_submission_study FOREIGN KEY(study) REFERENCES sweep_study (name)
);
INSERT INTO "sweep_submission" VALUES('small',1,'study: small
','{"study":"small"}','[]','[]','',0,'0.1.0','624355c4117efbae03468b73b273515cc2bcb1effecb6c6718c8df432726533f','0673c3846dc851e1236d7e83d16c8e04311e163f614b4da21edb4be845960927','2026-11-30 15:12:14.603593');
CREATE TABLE sweep_task (
	fingerprint TEXT NOT NULL, 
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	label TEXT NOT NULL, 
	identity TEXT NOT NULL, 
	state TEXT NOT NULL, 
	parameters BIGINT NOT NULL, 
	macs BIGINT NOT NULL, 
	flops DOUBLE NOT NULL, 
	samples BIGINT NOT NULL, 
	disk_bytes BIGINT NOT NULL, 
	attempts INTEGER NOT NULL, 
	failed_attempts INTEGER NOT NULL, 
	result_attempt INTEGER, 
	failure TEXT, 
	message TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	CONSTRAINT pk_sweep_task PRIMARY KEY (fingerprint), 
	CONSTRAINT ck_sweep_task_state CHECK (state IN ('pending', 'running', 'done', 'failed')), 
	CONSTRAINT ck_sweep_task_result CHECK ((state = 'done') = (result_attempt IS NOT NULL)), 
	CONSTRAINT uq_sweep_task_id UNIQUE (id)
);
INSERT INTO "sweep_task" VALUES('s1:96cf3f4633c011220b5c881129ae8741','prepare-96cf3f4633c01122','prepare','prepare {''images'': 64, ''salt'': ''''}','{"config":{"images":64,"salt":""},"kind":"prepare","parents":{}}','done',1000,2000,3.0e+19,0,4000,1,0,1,NULL,'','2026-11-30 15:12:14.603593','2026-11-30 15:12:14.818618');
INSERT INTO "sweep_task" VALUES('s1:581db174fb1fae2149d87e1043a41132','stage1-581db174fb1fae21','stage1','stage1 {''p'': 8, ''lr'': 0.0001, ''salt'': ''''}','{"config":{"lr":0.0001,"p":8,"salt":""},"kind":"stage1","parents":{"data":"s1:96cf3f4633c011220b5c881129ae8741"}}','done',1000,2000,3.0e+19,0,4000,1,0,1,NULL,'','2026-11-30 15:12:14.603593','2026-11-30 15:12:14.879663');
INSERT INTO "sweep_task" VALUES('s1:bdc29c7993457c4e036d291012515db5','reconstruct-bdc29c7993457c4e','reconstruct','reconstruct {''on'': ''photos'', ''salt'': ''''}','{"config":{"on":"photos","salt":""},"kind":"reconstruct","parents":{"images":"s1:96cf3f4633c011220b5c881129ae8741","model":"s1:581db174fb1fae2149d87e1043a41132"}}','done',1000,2000,3.0e+19,0,4000,1,0,1,NULL,'','2026-11-30 15:12:14.603593','2026-11-30 15:12:14.930753');
INSERT INTO "sweep_task" VALUES('s1:9ec9703e0272cafd72f28591b6f0661f','stage1-9ec9703e0272cafd','stage1','stage1 {''p'': 16, ''lr'': 0.001, ''salt'': ''''}','{"config":{"lr":0.001,"p":16,"salt":""},"kind":"stage1","parents":{"data":"s1:96cf3f4633c011220b5c881129ae8741"}}','pending',1000,2000,3.0e+19,0,4000,0,0,NULL,NULL,'','2026-11-30 15:12:14.603593',NULL);
INSERT INTO "sweep_task" VALUES('s1:4ad6556209191cc6900fae8b0150a2d0','reconstruct-4ad6556209191cc6','reconstruct','reconstruct {''on'': ''photos'', ''salt'': ''''}','{"config":{"on":"photos","salt":""},"kind":"reconstruct","parents":{"images":"s1:96cf3f4633c011220b5c881129ae8741","model":"s1:9ec9703e0272cafd72f28591b6f0661f"}}','pending',1000,2000,3.0e+19,0,4000,0,0,NULL,NULL,'','2026-11-30 15:12:14.603593',NULL);
CREATE TABLE sweep_trial (
	study TEXT NOT NULL, 
	search TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	place INTEGER NOT NULL, 
	point JSON NOT NULL, 
	sampler JSON NOT NULL, 
	cell TEXT, 
	why_not TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_sweep_trial PRIMARY KEY (study, search, number), 
	CONSTRAINT fk_sweep_trial_study FOREIGN KEY(study, search) REFERENCES sweep_search (study, "key"), 
	CONSTRAINT fk_sweep_trial_cell FOREIGN KEY(study, cell) REFERENCES sweep_cell (study, "key")
);
CREATE INDEX ix_sweep_task_state ON sweep_task (state);
CREATE INDEX ix_sweep_task_kind_state ON sweep_task (kind, state);
CREATE INDEX ix_sweep_cell_study_is_current_number ON sweep_cell (study, is_current, number);
CREATE INDEX ix_sweep_dependency_parent ON sweep_dependency (parent);
CREATE UNIQUE INDEX uq_sweep_attempt_running ON sweep_attempt (task) WHERE state = 'running';
CREATE INDEX ix_sweep_metric_final ON sweep_metric (task, dataset) WHERE step = -1;
CREATE INDEX ix_sweep_metric_name_dataset_step ON sweep_metric (name, dataset, step);
CREATE INDEX ix_sweep_cell_task_task ON sweep_cell_task (task);
CREATE INDEX ix_sweep_trial_study_place ON sweep_trial (study, place);
CREATE VIEW v_cell AS
WITH RECURSIVE blocked(task) AS (
    SELECT d.task FROM sweep_dependency d
      JOIN sweep_task t ON t.fingerprint = d.parent WHERE t.state = 'failed'
    UNION
    SELECT d.task FROM sweep_dependency d JOIN blocked b ON d.parent = b.task
),
standing AS (
    SELECT x.study, x.cell, count(*) AS tasks,
        sum(CASE WHEN t.state = 'done' THEN 1 ELSE 0 END) AS done,
        sum(CASE WHEN t.state = 'failed' THEN 1 ELSE 0 END) AS failed,
        sum(CASE WHEN t.state = 'running' THEN 1 ELSE 0 END) AS running,
        sum(CASE WHEN t.state = 'pending' AND b.task IS NOT NULL THEN 1 ELSE 0 END) AS blocked
    FROM sweep_cell_task x
    JOIN sweep_task t ON t.fingerprint = x.task
    LEFT JOIN blocked b ON b.task = t.fingerprint
    GROUP BY x.study, x.cell
),
final AS (
    SELECT x.study, x.cell, m.protocol, m.name, m.value
    FROM sweep_cell k
    JOIN sweep_cell_task x ON x.study = k.study AND x.cell = k.key
    JOIN sweep_task t ON t.fingerprint = x.task AND t.kind <> 'generate'
    JOIN sweep_metric m ON m.task = x.task AND m.dataset = k.dataset AND m.step = -1
    WHERE k.is_current
),
chosen AS (SELECT study, cell, min(protocol) AS protocol FROM final GROUP BY study, cell),
measured AS (
    SELECT f.study, f.cell, f.protocol,
        max(CASE WHEN f.name = 'psnr' THEN f.value END) AS psnr,
        max(CASE WHEN f.name = 'ssim' THEN f.value END) AS ssim,
        max(CASE WHEN f.name = 'lpips' THEN f.value END) AS lpips,
        max(CASE WHEN f.name = 'rfd_lite0' THEN f.value END) AS rfd_lite0,
        max(CASE WHEN f.name = 'rkid_lite0' THEN f.value END) AS rkid_lite0,
        max(CASE WHEN f.name = 'rfid' THEN f.value END) AS rfid
    FROM final f
    JOIN chosen h ON h.study = f.study AND h.cell = f.cell AND h.protocol = f.protocol
    GROUP BY f.study, f.cell, f.protocol
),
sampled AS (
    SELECT x.study, x.cell, max(f.protocol) AS protocol,
        max(CASE WHEN f.name = 'gfd_lite0' THEN f.value END) AS gfd_lite0,
        max(CASE WHEN f.name = 'gfid' THEN f.value END) AS gfid,
        max(CASE WHEN f.name = 'gis' THEN f.value END) AS gis
    FROM sweep_cell k
    JOIN sweep_cell_task x ON x.study = k.study AND x.cell = k.key
    JOIN sweep_task t ON t.fingerprint = x.task AND t.kind = 'generate'
    JOIN sweep_metric f ON f.task = x.task AND f.dataset = k.generation_dataset AND f.step = -1
    WHERE k.is_current
    GROUP BY x.study, x.cell
)
SELECT c.study, c.number AS cell, c.p, c.q, c.c, c.encoder, c.decoder, c.resolution, c.frames, c.seed, c.tokens, c.e AS "E", c.compression, c.parameters, c.macs, c.encoder_parameters, c.decoder_parameters, c.encoder_macs, c.decoder_macs, c.dit_parameters, c.dit_macs, c.axes AS axes,
    CASE WHEN s.failed > 0 THEN 'failed' WHEN s.blocked > 0 THEN 'blocked'
        WHEN s.running > 0 THEN 'running' WHEN s.done < s.tasks THEN 'pending'
        WHEN s.done = s.tasks AND c.until IS NULL THEN 'done' WHEN s.done = s.tasks THEN 'pruned'
        ELSE 'pending' END AS state,
    c.until,
    coalesce(s.tasks, 0) AS tasks, coalesce(s.done, 0) AS tasks_done,
    c.dataset, m.protocol, m.psnr, m.ssim, m.lpips, m.rfd_lite0, m.rkid_lite0, m.rfid,
    c.generation_dataset, g.protocol AS generation_protocol, g.gfd_lite0, g.gfid, g.gis
FROM sweep_cell c
LEFT JOIN standing s ON s.study = c.study AND s.cell = c.key
LEFT JOIN measured m ON m.study = c.study AND m.cell = c.key
LEFT JOIN sampled g ON g.study = c.study AND g.cell = c.key
WHERE c.is_current;
CREATE VIEW v_cell_task AS
WITH RECURSIVE blocked(task) AS (
    SELECT d.task FROM sweep_dependency d
      JOIN sweep_task t ON t.fingerprint = d.parent WHERE t.state = 'failed'
    UNION
    SELECT d.task FROM sweep_dependency d JOIN blocked b ON d.parent = b.task
)
SELECT c.study, c.number AS cell, x.stage, t.id AS task, t.kind, CASE WHEN t.state = 'pending' AND b.task IS NOT NULL THEN 'blocked' ELSE t.state END AS state
FROM sweep_cell c
JOIN sweep_cell_task x ON x.study = c.study AND x.cell = c.key
JOIN sweep_task t ON t.fingerprint = x.task
LEFT JOIN blocked b ON b.task = t.fingerprint
WHERE c.is_current;
CREATE VIEW v_task AS
WITH RECURSIVE blocked(task) AS (
    SELECT d.task FROM sweep_dependency d
      JOIN sweep_task t ON t.fingerprint = d.parent WHERE t.state = 'failed'
    UNION
    SELECT d.task FROM sweep_dependency d JOIN blocked b ON d.parent = b.task
),
spent AS (
    SELECT task, sum(seconds) AS seconds, max(peak_memory_bytes) AS peak_memory_bytes
    FROM sweep_attempt GROUP BY task
)
SELECT t.id AS task, t.kind, t.fingerprint, t.label, CASE WHEN t.state = 'pending' AND b.task IS NOT NULL THEN 'blocked' ELSE t.state END AS state, t.failure, t.message,
    t.attempts, t.failed_attempts, t.parameters, t.macs, t.flops, t.disk_bytes,
    a.step, a.steps, a.loss, coalesce(s.seconds, 0) AS seconds,
    coalesce(s.peak_memory_bytes, 0) AS peak_memory_bytes,
    a.host, a.device, a.predicted_s, a.code, a.log, t.created_at, t.finished_at
FROM sweep_task t
LEFT JOIN blocked b ON b.task = t.fingerprint
LEFT JOIN sweep_attempt a ON a.task = t.fingerprint AND a.number = t.attempts
LEFT JOIN spent s ON s.task = t.fingerprint;
CREATE VIEW v_metric AS
SELECT c.study, c.number AS cell, c.p, c.q, c.c, c.encoder, c.decoder, c.resolution, c.frames, c.seed, c.tokens, c.e AS "E", c.compression, c.parameters, c.macs, c.encoder_parameters, c.decoder_parameters, c.encoder_macs, c.decoder_macs, c.dit_parameters, c.dit_macs, c.axes AS axes,
    x.stage, t.id AS task, t.kind, m.name, m.dataset, m.protocol,
    nullif(m.step, -1) AS step, m.value, m.n, m.se
FROM sweep_cell c
JOIN sweep_cell_task x ON x.study = c.study AND x.cell = c.key
JOIN sweep_task t ON t.fingerprint = x.task
JOIN sweep_metric m ON m.task = x.task
WHERE c.is_current;
CREATE VIEW v_cost AS
WITH used AS (
    SELECT DISTINCT c.study, x.task
    FROM sweep_cell c JOIN sweep_cell_task x ON x.study = c.study AND x.cell = c.key
    WHERE c.is_current
),
spent AS (
    SELECT task, count(*) AS attempts, sum(seconds) AS seconds, max(peak_memory_bytes) AS peak,
        sum(CASE WHEN state IN ('failed', 'lost') THEN seconds ELSE 0 END) AS lost
    FROM sweep_attempt GROUP BY task
),
kept AS (SELECT task, sum(bytes) AS bytes FROM sweep_file GROUP BY task)
SELECT u.study, t.kind, count(*) AS tasks,
    sum(CASE WHEN t.state = 'done' THEN 1 ELSE 0 END) AS tasks_done,
    sum(coalesce(s.attempts, 0)) AS attempts, sum(t.flops) AS flops,
    sum(coalesce(r.flops, 0)) AS flops_done, sum(coalesce(s.seconds, 0)) AS seconds,
    sum(CASE WHEN t.result_attempt = 1 AND r.predicted_s > 0 THEN r.predicted_s ELSE 0 END)
        AS seconds_predicted,
    sum(CASE WHEN t.result_attempt = 1 AND r.predicted_s > 0 THEN r.seconds ELSE 0 END)
        AS seconds_taken,
    sum(coalesce(s.lost, 0)) AS seconds_lost, max(coalesce(s.peak, 0)) AS peak_memory_bytes,
    sum(t.disk_bytes) AS disk_bytes, sum(coalesce(k.bytes, 0)) AS file_bytes
FROM used u
JOIN sweep_task t ON t.fingerprint = u.task
LEFT JOIN spent s ON s.task = u.task
LEFT JOIN kept k ON k.task = u.task
LEFT JOIN sweep_attempt r ON r.task = u.task AND r.number = t.result_attempt
GROUP BY u.study, t.kind;
CREATE VIEW v_lineage AS
WITH RECURSIVE line(task, ancestor, depth) AS (
    SELECT task, parent, 1 FROM sweep_dependency
    UNION
    SELECT l.task, d.parent, l.depth + 1
    FROM line l JOIN sweep_dependency d ON d.task = l.ancestor
)
SELECT t.id AS task, t.kind, a.id AS ancestor, a.kind AS ancestor_kind, min(l.depth) AS depth
FROM line l
JOIN sweep_task t ON t.fingerprint = l.task
JOIN sweep_task a ON a.fingerprint = l.ancestor
GROUP BY t.id, t.kind, a.id, a.kind;
CREATE VIEW v_fit AS
SELECT f.study, f.name AS fit, f.number, f.created_at, f.condition, f.law, f.n,
    f.slope, f.slope_low, f.slope_high, f.r2, f.folder, f.result AS result
FROM sweep_fit f
WHERE f.number = (
    SELECT max(g.number) FROM sweep_fit g
    WHERE g.study = f.study AND g.name = f.name AND g.condition = f.condition
);
CREATE VIEW v_trial AS
SELECT r.study, r.search, r.number AS trial, c.number AS cell, r.point AS point,
    r.why_not, r.created_at AS asked_at
FROM sweep_trial r
JOIN sweep_search s ON s.study = r.study AND s.key = r.search
LEFT JOIN sweep_cell c ON c.study = r.study AND c.key = r.cell
WHERE s.is_current;
CREATE VIEW v_fitted AS
SELECT f.configuration, t.kind, t.id AS task, t.label, f.device_name,
    f.memory_bytes, f.ranks, f.micro_batch, f.recompute, f.peak_bytes, f.free_bytes, f.seen_at
FROM sweep_fitted f
JOIN sweep_task t ON t.fingerprint = f.task;
CREATE VIEW v_reference AS
SELECT r.id, r.source, r.place, r.figure, r.kind, r.dataset, r.variant,
    r.encoder, r.decoder, r.encoder_parameters, r.decoder_parameters, r.resolution, r.frames,
    r.q, r.p, r.c, r.tokens, r.e AS "E", r.setting, r.generator, r.cfg,
    r.name, r.value, r.value_high, r.n, r.protocol, r.note
FROM sweep_reference r;
COMMIT;
