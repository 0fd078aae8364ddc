// A prebuilt JupyterLab extension without a build step: it adds the course's tour to jupyterlab-tour and offers it until
// the reader has taken or declined it. A tour in jupyterlab-tour's settings is not offered: version 4.1.0 looks for it
// under another id than the one it stored.
const center = { target: "#jp-main-dock-panel", placement: "center" };
const menu = { target: "#jp-MainMenu", placement: "bottom" };
const tour = {
  id: "engineroom-tour:tour",
  label: "Engine Room tour",
  version: 20261128,
  hasHelpEntry: true,
  options: { hideBackButton: true },
  steps: [
    {
      ...center,
      title: "Your copy of the lesson",
      content:
        "A lesson is a page of text, code and exercises. Work through it from top to bottom. To run a cell, click into " +
        "it and press Shift+Enter. This copy is yours: change what you like.",
    },
    {
      ...center,
      title: "Exercises",
      content:
        "A cell that says YOUR CODE waits for your answer. Its last line checks the answer. A wrong answer gets a hint; " +
        "if you repeat the mistake, the next hint says more. Your progress is saved.",
    },
    {
      target: "#jp-left-stack",
      placement: "right",
      title: "The lessons",
      content: "Double-click a lesson to open it. The folders docs, models and records belong to the course.",
    },
    {
      ...menu,
      title: "When a cell hangs",
      content:
        "Kernel > Interrupt Kernel stops the cell. Kernel > Restart Kernel also stops the lesson's servers; then run " +
        "the cells again from the top.",
    },
    {
      ...menu,
      title: "A terminal",
      content:
        "File > New > Terminal opens a terminal in which the commands of the lessons work. Try: engineroom machine. And " +
        "engineroom progress map shows where you are in the course.",
    },
    {
      target: "#jp-main-statusbar",
      placement: "top",
      title: "Memory",
      content:
        "Mem is the memory that JupyterLab, your notebooks and their servers use, and the memory of this machine. When " +
        "it runs short, shut down a notebook that you no longer need: Kernel > Shut Down Kernel. The Help menu has " +
        "this tour.",
    },
  ],
};
const offer = async (commands) => {
  if (commands.hasCommand("jupyterlab-tour:add")) {
    await commands.execute("jupyterlab-tour:add", { tour });
    await commands.execute("jupyterlab-tour:launch", { id: tour.id, force: false });
  }
};
const plugin = {
  id: "engineroom-tour:plugin",
  description: "Offers the course's tour.",
  autoStart: true,
  activate: (app) => {
    app.restored.then(() => offer(app.commands)); // not awaited: JupyterLab is restored only after all are activated
  },
};
window._JUPYTERLAB = window._JUPYTERLAB || {};
window._JUPYTERLAB["engineroom-tour"] = { init: () => {}, get: async () => () => ({ __esModule: true, default: plugin }) };
