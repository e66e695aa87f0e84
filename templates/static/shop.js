// Nicer with it, complete without it: a changed quantity is sent at once, so the Update buttons can go.
for (const form of document.querySelectorAll("form.quantity")) {
  const input = form.querySelector("input[type=number]");
  form.querySelector("button").hidden = true;
  input.addEventListener("change", () => {
    if (input.reportValidity()) form.requestSubmit();
  });
}
