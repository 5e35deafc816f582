// The uploader: asks the server which of the dropped files it wants, and sends those by tus, each from where it stopped.
import { Dashboard, Tus, Uppy } from "../vendor/uppy/uppy.min.mjs";

const place = document.getElementById("uploader");
const notice = document.getElementById("uploader-notice");
const { plan: planUrl, tus: tusUrl, csrf } = place.dataset;
const ANNOUNCE = 5000; // names in one request
const PARALLEL = 6; // what a browser has of connections to one server
const SECOND = 1000;
const NOT_DATA = /^(\.DS_Store|Thumbs\.db|desktop\.ini|\._.*)$/;

const uppy = new Uppy({
  id: "uploader",
  onBeforeFileAdded: (file) => !NOT_DATA.test(file.name),
});

uppy.use(Dashboard, {
  inline: true,
  target: place,
  width: "100%",
  height: 300,
  theme: "light", // our own colours follow light and dark, see uploads.css
  fileManagerSelectionType: "both",
  disableThumbnailGenerator: true,
  disableInformer: true,
  hideUploadButton: true, // sending starts by itself when the server has answered
  proudlyDisplayPoweredByUppy: false,
  locale: { strings: { dropPasteBoth: "Drop a folder of movies here, or choose %{browseFiles} or %{browseFolders}", browseFiles: "files", browseFolders: "a folder" } },
});

uppy.use(Tus, {
  endpoint: tusUrl,
  limit: PARALLEL,
  chunkSize: 128 * 2 ** 20, // a refusal in the middle of a large file is heard soon, and proxies take it
  allowedMetaFields: ["relativePath", "name"],
  storeFingerprintForResuming: false, // the server's own list is what we go by
  retryDelays: [0, 1, 2, 5, 10, 20, 30, ...Array(60).fill(60)].map((s) => s * SECOND),
  onShouldRetry: (error, _attempt, _options, next) => {
    const status = error.originalResponse?.getStatus();
    const refused = status === 409 && error.originalRequest?.getMethod() === "POST"; // the name is taken
    return status !== 507 && !refused && next(error); // a full disk does not mend itself
  },
});

function pathOf(file) {
  return (file.meta.relativePath || file.name).replace(/^\/+/, "");
}

async function announce(files) {
  const body = JSON.stringify({ files: files.map((file) => ({ path: pathOf(file), size: file.size })) });
  const headers = { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": csrf };
  const response = await fetch(planUrl, { method: "POST", body, headers });
  if (response.ok) return (await response.json()).files;
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.detail || `The server answered ${response.status}. Reload the page and try again.`);
}

const told = new Set();

function tell(text, tone = "warning") {
  told.add(text);
  const lines = [...told].slice(0, 8).map((message) => {
    const line = document.createElement("p");
    line.textContent = message;
    return line;
  });
  if (told.size > lines.length) lines.push(document.createTextNode(`and ${told.size - lines.length} more.`));
  notice.replaceChildren(...lines);
  notice.className = `notice ${tone}`;
  notice.hidden = false;
}

function tellNothing() {
  told.clear();
  notice.hidden = true;
}

function isSending() {
  return Object.keys(uppy.getState().currentUploads).length > 0;
}

function changed() {
  document.body.dispatchEvent(new Event("uploads-changed"));
}

uppy.on("files-added", async (files) => {
  tellNothing();
  const present = [];
  try {
    for (let start = 0; start < files.length; start += ANNOUNCE) {
      const some = files.slice(start, start + ANNOUNCE);
      const planned = await announce(some);
      some.forEach((file, i) => {
        const { state, id, reason } = planned[i];
        if (state === "refused") tell(reason);
        if (state === "refused" || state === "present") present.push(file.id);
        else uppy.setFileState(file.id, { tus: { uploadUrl: `${tusUrl}/${id}` } });
      });
    }
  } catch (error) {
    uppy.removeFiles(files.map((file) => file.id));
    tell(error instanceof TypeError ? "The server cannot be reached. Drop the files again when it can." : error.message);
    return;
  }
  uppy.removeFiles(present);
  changed();
  if (present.length < files.length) await uppy.upload();
  else if (!told.size) tell(files.length === 1 ? "This file is here already." : `All ${files.length} files are here already.`, "good");
});

setInterval(() => {
  if (isSending()) changed();
}, 5 * SECOND);

uppy.on("upload-error", (file, error, response) => {
  const words = response?.body?.xhr?.responseText;
  tell(words || `“${file ? pathOf(file) : "A file"}” was not sent: the server cannot be reached. Press “Retry” when it can.`);
});

uppy.on("complete", ({ successful }) => {
  uppy.removeFiles(successful.map((file) => file.id)); // the server's list shows them from here on
  changed();
});
uppy.on("cancel-all", () => setTimeout(changed, SECOND));

window.addEventListener("online", () => {
  if (uppy.getFiles().some((file) => file.error)) {
    tellNothing();
    uppy.retryAll();
  }
});

window.addEventListener("beforeunload", (event) => {
  if (isSending()) event.preventDefault();
});

place.dataset.ready = "yes";
