// Tollgate's budgets in nginx: ask before a request is forwarded, tell the answer afterwards.
// Needs njs 0.7 or newer (Debian: libnginx-mod-http-js). nginx.conf beside this file shows how it is wired.
import fs from 'fs';

// Answers are kept here until they have been told; in memory, so that no disk is written. Must exist, and belong to
// nginx's user alone: mkdir -m 700 /dev/shm/tollgate && chown www-data /dev/shm/tollgate
const FOLDER = '/dev/shm/tollgate';
const NOT_TOLD = ['connection', 'content-length', 'date', 'keep-alive', 'server', 'transfer-encoding'];
const FOR_US = ['x-tollgate-admission', 'x-tollgate-answer-to', 'x-tollgate-output-cap', 'content-type'];

// js_content: hold what the request needs; forward it, or answer with the refusal in the caller's own dialect.
async function admit(r) {
    const check = await r.subrequest('/_tollgate/check', { method: r.method });
    const refused = check.status !== 200;
    for (const name in check.headersOut) {
        const lowered = name.toLowerCase();
        if (!NOT_TOLD.includes(lowered) && (refused || !FOR_US.includes(lowered))) {
            r.headersOut[name] = check.headersOut[name];
        }
    }
    if (refused) {
        r.return(check.status, check.responseText);
        return;
    }
    r.variables.tollgate_admission = check.headersOut['x-tollgate-admission'];
    r.variables.tollgate_answer_to = check.headersOut['x-tollgate-answer-to'];
    if (check.responseText) {
        // A budget lowers the cap on the answer: this body says so.
        r.variables.tollgate_body = check.responseText;
        r.internalRedirect('@provider_capped');
    } else {
        r.internalRedirect('@provider');
    }
}

// js_header_filter: what the provider answered, or nginx in its place.
function head(r) {
    r.variables.tollgate_status = String(r.status);
    r.variables.tollgate_type = r.headersOut['Content-Type'] || '';
}

// js_body_filter: pass every piece on at once, and remember it.
function listen(r, piece, flags) {
    r.sendBuffer(piece, flags);
    if (piece.length) {
        fs.appendFileSync(kept(r), piece);
    }
}

// js_set: what the caller has been sent, to be told to Tollgate; nothing if it left before.
function said(r) {
    let body = '';
    try {
        body = fs.readFileSync(kept(r)).toString();
        fs.unlinkSync(kept(r));
    } catch (error) {
        if (error.code !== 'ENOENT') {
            r.error(`the answer of ${r.variables.tollgate_admission} cannot be read: ${error}`);
        }
    }
    return body;
}

function kept(r) {
    return `${FOLDER}/${r.variables.tollgate_admission}`;
}

export default { admit, head, listen, said };
