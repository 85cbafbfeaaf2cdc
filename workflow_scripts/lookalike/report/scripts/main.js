// Progressive enhancement: the report is readable without it.
import { startBoard } from "./board.js";
import { startExplorer } from "./explorer.js";
import { startExports } from "./exports.js";
import { startNeeds } from "./needs.js";
import { startAppendix } from "./parts.js";
import { startCards } from "./useit.js";

startNeeds();
startBoard();
startCards();
startAppendix();
startExports();
startExplorer().catch((error) => console.warn("The explorer did not start:", error));
