// A part of the page that is fetched again and again keeps open what the person has opened in it (details with an id).
let open = [];

document.addEventListener("htmx:beforeSwap", (event) => {
  open = [...event.target.querySelectorAll("details[open][id]")].map((details) => details.id);
});

document.addEventListener("htmx:afterSwap", () => {
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
});
