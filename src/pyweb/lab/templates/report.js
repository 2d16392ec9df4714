
"use strict";
for (const button of document.querySelectorAll("button[data-copied]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.dataset.copied;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const said = button.textContent;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = said; }, 1500);
  });
}
const raw = document.getElementById("raw");
const link = document.getElementById("download");
link.href = URL.createObjectURL(new Blob([raw.textContent], { type: "application/json" }));
link.hidden = false;
